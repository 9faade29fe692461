"""The fast loop of free-running speech says what its definition says."""

import re
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from kernels import inference, matmul, native_inference, packed_weights
from kernels.backend import why_unsupported
from kernels.inference import TorchLoop, TorchWeights
from kernels.packed_weights import Matrix, SparseColumns, in_int8
from support.decoding import LENGTHS, LIMITS, SMALL, assert_same, speak, texts, voice

WIDE = re.sub(r"(attention_rnn_dim|decoder_rnn_dim|prenet_dim|encoder_embedding_dim)=\d+", r"\1=192", SMALL)


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize(
    "settings",
    [
        "",
        "n_frames_per_step=3",
        "reduction_schedule=[0:2;5:4]".replace(";", ","),
        "dropout_rate=0.0",
        "use_forward_attention=True",
        "use_attention_smoothing=True",
        "use_location_sensitive_attention=False",
        "attention_location_kernel_size=1",
        "encoder_embedding_dim=4",  # fewer than symbols: context is multiplied at every step
    ],
)
def test_fast_and_plain_speech_agree_in_double_precision(settings: str, n: int) -> None:
    widths = SMALL
    for pair in settings.split(",") if settings and "[" not in settings else []:
        widths = re.sub(rf"(^|,){pair.split('=')[0]}=[^,]*", "", widths)
    model = voice(settings, widths=widths)
    assert_same(speak(model, "fast", n=n), speak(model, "plain", n=n), within=1e-11)


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("is_packed", [True, False])
def test_fast_and_plain_speech_agree_in_single_precision(
    n: int, is_packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_packed and not matmul.can_pack(torch.float32):
        pytest.skip("this build of PyTorch has no packed products")
    monkeypatch.setattr(packed_weights, "can_pack", lambda dtype: is_packed)
    monkeypatch.setattr(packed_weights, "PACKING_PAYS_FROM", 1 << 10)
    monkeypatch.setattr(inference, "PACKING_PAYS_FROM", 1 << 10)
    model = voice(widths=WIDE, dtype=torch.float32)
    assert_same(speak(model, "fast", n=n), speak(model, "plain", n=n), within=1e-4)


def test_both_loops_stop_at_the_same_step_for_the_same_reason() -> None:
    model = voice()
    unstopped = speak(model, "plain")
    assert {d.stop_reason for d in unstopped} == {"dwell", "budget"}
    highest = torch.cat([d.gate for d in unstopped]).sort().values[-5:]
    for threshold in highest.unfold(0, 2, 1).mean(1).tolist():  # met by one step, by two, ...
        limits = replace(LIMITS, gate_threshold=threshold)
        plain = speak(model, "plain", limits=limits)
        assert "gate" in {d.stop_reason for d in plain}
        assert_same(speak(model, "fast", limits=limits), plain, within=1e-11)


@pytest.mark.parametrize("n_steps", [1, 3, 1000])
def test_how_often_one_looks_for_the_end_changes_nothing(n_steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = voice()
    expected = speak(model, "plain")
    monkeypatch.setattr(inference, "STEPS_ON_CPU", n_steps)
    assert_same(speak(model, "fast"), expected, within=1e-11)


def test_prepared_weights_say_the_same_and_are_only_used_for_single_texts() -> None:
    model = voice()
    expected = speak(model, "plain", n=1), speak(model, "plain", n=3)
    model.decoder.prepare_for_inference("fp32")
    for said, n in zip(expected, (1, 3), strict=True):
        assert_same(speak(model, "fast", n=n), said, within=1e-11)


def test_buffers_keep_their_addresses_and_what_was_taken_its_values() -> None:
    model = voice()
    memory = model.decoder.attend(model.encode(texts(3), LENGTHS), LENGTHS)
    loop = TorchLoop(model.decoder, TorchWeights(model.decoder, n_rows=3), memory, n_steps=4)
    buffers = (loop.outputs, loop.alignments, loop.sums, loop.features, loop.masks, loop.attention.seen)
    addresses = [buffer.data_ptr() for buffer in buffers]
    loop.draw(torch.Generator().manual_seed(1))
    loop.run()
    first = loop.take()
    kept = first.projected.clone()
    loop.draw(torch.Generator().manual_seed(2))
    loop.run()
    assert [buffer.data_ptr() for buffer in buffers] == addresses
    assert torch.equal(first.projected, kept) and not torch.equal(loop.take().projected, kept)


# ---- products


@dataclass(frozen=True)
class Factors:
    weight: Tensor
    x: Tensor
    base: Tensor

    def error(self, matrix: Matrix | SparseColumns) -> float:
        """Largest error as a part of the largest value."""
        out = torch.empty_like(self.base)
        matrix.add(self.base, self.x, out=out)
        exact = self.base.double() + self.x.double() @ self.weight.double().t()
        return float((out - exact).abs().max() / exact.abs().max())


def factors(n_rows: int = 1) -> Factors:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n_rows, 512, generator=generator).tanh()
    return Factors(torch.randn(640, 512, generator=generator), x, torch.randn(n_rows, 640, generator=generator))


@pytest.mark.parametrize("n_rows", [1, 3])
def test_products_of_few_rows_are_exact(n_rows: int) -> None:
    given = factors(n_rows)
    assert given.error(Matrix(given.weight, n_rows=n_rows)) < 1e-6


def test_a_product_of_mostly_zeros_is_exact() -> None:
    given = factors()
    given.x[:, torch.rand(512, generator=torch.Generator().manual_seed(2)) < 0.8] = 0.0
    assert given.error(SparseColumns(given.weight)) < 1e-6
    given.x.zero_()
    assert given.error(SparseColumns(given.weight)) == 0.0


def test_int8_weights_are_off_by_half_a_step_of_their_own_row() -> None:
    weight = factors().weight * torch.logspace(-6, 6, 640)[:, None]
    weight[7] = 0.0
    whole, scale = in_int8(weight)
    assert whole.dtype == torch.int8 and bool((whole[7] == 0).all())
    assert bool(((whole * scale[:, None] - weight).abs() <= 0.5001 * scale[:, None]).all())


def test_half_and_int8_weights_need_the_compiled_loop_and_the_reason_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = voice(widths=WIDE).decoder
    monkeypatch.setattr(native_inference, "loaded", lambda: None)
    for precision in ("bf16", "int8"):
        decoder.backend = "auto"
        assert "a processor with AVX-512 and a C++ compiler" in str(why_unsupported(decoder, precision))
        decoder.backend = "fast"
        assert "decoder_backend=fast" in str(why_unsupported(decoder, precision))
    assert why_unsupported(decoder, "fp32") is None
