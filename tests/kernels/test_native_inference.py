"""The compiled loop of free-running speech says what its definition says; in fewer bits, what rounded weights say."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from data_utils import load_corpus
from hparams import create_hparams
from kernels import native_inference
from kernels.backend import is_compiled, why_unsupported
from kernels.native import processor_flags
from kernels.native_inference import CompiledLoop, CompiledWeights
from kernels.packed_weights import InferencePrecision, in_int8
from model import Decoded, DecodeLimits, Decoder, Tacotron2
from modules.stopping import DecodedSteps
from speech.voice import Speaker
from support.decoding import LIMITS, SMALL, assert_same, speak, voice
from support.kernels import needs_native
from support.voices import Tiny, save_voice

pytestmark = needs_native

WIDTHS = {
    "attention_rnn_dim": 64, "decoder_rnn_dim": 128, "encoder_embedding_dim": 64, "attention_dim": 64,
    "prenet_dim": 76,  # which ends within a vector and within a panel
}  # fmt: skip
COVERED = re.sub(r"(\w+_dim)=(\d+)", lambda found: f"{found[1]}={WIDTHS.get(found[1], found[2])}", SMALL)
LONG = torch.tensor([31, 41, 22])  # of texts with more symbols together than the encoder is wide
# fp32 rounds to 6e-8 of values around one, in sums of a hundred, and each step hears what the one before it said
ROUNDING = 1e-5


def lively(model: Tacotron2, *, by: float) -> Tacotron2:
    """Weights with which attention moves and the gate wavers."""
    with torch.no_grad():
        for name, parameter in model.decoder.named_parameters():
            parameter.mul_(1.5 * by if name.startswith("attention_layer") else by)
        model.embedding.weight.mul_(3.0)
    return model


def compiled_voice(settings: str = "") -> Tacotron2:
    model = lively(voice(settings, widths=COVERED, dtype=torch.float32), by=4 / 3)
    model.decoder.gate_layer.linear_layer.bias.data.fill_(-1.0)
    assert is_compiled(model.decoder)
    return model


def speak_long(model: Tacotron2, backend: str) -> list[Decoded]:
    model.decoder.backend = backend  # type: ignore[assignment]
    text = torch.randint(1, 148, (3, 41), generator=torch.Generator().manual_seed(5))
    return model.infer(text, LONG, LIMITS, generator=torch.Generator().manual_seed(1))


def test_the_voice_that_both_loops_speak_with_moves_its_attention_and_its_gate() -> None:
    said = speak(compiled_voice(), "plain")
    for text in said:
        assert float(text.mel.std()) > 0.2 and float(text.gate.max() - text.gate.min()) > 0.02
        assert float(text.alignment.max(1).values.mean()) > 1.5 / text.alignment.size(1)  # a blur has 1


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize(
    "settings", ["", "n_frames_per_step=3", "reduction_schedule=[0:2;5:4]".replace(";", ","), "dropout_rate=0.0"]
)
def test_compiled_speech_says_what_the_definition_says(settings: str, n: int) -> None:
    model = compiled_voice(settings)
    assert_same(speak(model, "auto", n=n), speak(model, "plain", n=n), within=ROUNDING)


def test_texts_with_more_symbols_than_the_encoder_is_wide_are_read_by_their_context() -> None:
    model = compiled_voice()
    assert_same(speak_long(model, "auto"), speak_long(model, "plain"), within=ROUNDING)


@pytest.mark.parametrize("kernel_size", [1, 31])
def test_the_narrowest_and_the_widest_window_of_attention_are_covered(kernel_size: int) -> None:
    narrow = COVERED.replace("kernel_size=5", f"kernel_size={kernel_size}")
    model = lively(voice(widths=narrow, dtype=torch.float32), by=4 / 3)
    assert is_compiled(model.decoder)
    assert_same(speak(model, "auto"), speak(model, "plain"), within=ROUNDING)


def test_every_text_stops_at_its_own_step_for_the_same_reason() -> None:
    model = compiled_voice()
    gates = torch.cat([text.gate for text in speak(model, "plain")]).sort().values
    reasons = set()
    for threshold in gates.unfold(0, 2, 1).mean(1)[::7].tolist():
        limits = replace(LIMITS, gate_threshold=threshold)
        plain = speak(model, "plain", limits=limits)
        assert_same(speak(model, "auto", limits=limits), plain, within=ROUNDING)
        reasons |= {tuple(text.stop_reason for text in plain)}
    assert any({"gate", "budget"} <= set(reason) for reason in reasons)  # some texts spoke on when others had stopped


def full_size() -> tuple[Decoder, Tensor]:
    torch.manual_seed(3)
    return Decoder(create_hparams("")), torch.randn(1, 24, 512).tanh()


def first_steps(decoder: Decoder, memory: Tensor, backend: str, *, frames: int = 10) -> Tensor:
    """-> mel [1, n_mels, frames]"""
    decoder.backend = backend  # type: ignore[assignment]
    limits = DecodeLimits(frames, gate_threshold=2.0, frames_per_symbol=1e3, dwell_frames=1000)
    lengths = torch.tensor([memory.size(1)])
    return decoder.infer(memory, lengths, limits, torch.Generator().manual_seed(1))[0][:, :, :frames]


@torch.no_grad()
def test_at_full_width_every_precision_says_nearly_the_same() -> None:
    decoder, memory = full_size()
    exact = first_steps(decoder, memory, "plain")
    for precision, within in (("fp32", ROUNDING), ("bf16", 0.004), ("int8", 0.02)):
        if why_unsupported(decoder, precision) is None:
            decoder.prepare_for_inference(precision)
            error = float((first_steps(decoder, memory, "auto") - exact).abs().max() / exact.abs().max())
            assert error < within and (error > 1e-5 or precision == "fp32"), precision


# ---- what a run of steps promises


def loop_of(model: Tacotron2, precision: InferencePrecision = "fp32") -> CompiledLoop:
    text = torch.randint(1, 148, (3, 41), generator=torch.Generator().manual_seed(5))
    memory = model.decoder.attend(model.encode(text, LONG), LONG)
    return CompiledWeights(model.decoder, precision=precision).begin(model.decoder, memory)


def said_by(loop: CompiledLoop, *, runs: int = 3) -> DecodedSteps:
    parts = []
    for seed in range(runs):
        loop.draw(torch.Generator().manual_seed(seed))
        loop.run()
        parts.append(loop.take())
    return DecodedSteps(*(torch.cat(part) for part in zip(*parts, strict=True)))


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
@torch.no_grad()
def test_any_number_of_threads_says_the_same_bits(precision: InferencePrecision) -> None:
    model, found, before = compiled_voice(), [], torch.get_num_threads()
    needs(precision)
    try:
        for n_threads in (1, 2, 3):
            torch.set_num_threads(n_threads)
            found.append(said_by(loop_of(model, precision)))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(other, found[0], strict=True))


@torch.no_grad()
def test_texts_that_have_stopped_change_no_bit_of_the_others() -> None:
    model = compiled_voice()
    together, left = loop_of(model), loop_of(model)
    first = said_by(together, runs=1), said_by(left, runs=1)
    left.drop_stopped([0, 5, 0])
    then = said_by(together), said_by(left)
    assert all(torch.equal(a, b) for a, b in zip(*first, strict=True))
    for a, b in zip(*then, strict=True):
        assert torch.equal(a[:, [0, 2]], b[:, [0, 2]]) and not torch.equal(a[:, 1], b[:, 1])


@torch.no_grad()
def test_what_was_taken_is_left_alone_by_later_runs() -> None:
    loop = loop_of(compiled_voice())
    taken = said_by(loop, runs=1)
    kept = taken.projected.clone()
    later = said_by(loop, runs=1)
    assert torch.equal(taken.projected, kept) and not torch.equal(later.projected, kept)


# ---- reduced precision


def needs(precision: InferencePrecision) -> None:
    if precision == "int8" and "avx512_vnni" not in processor_flags():
        pytest.skip("this processor has no int8 instructions")


def rounded(weight: Tensor, precision: InferencePrecision) -> Tensor:
    if precision == "bf16":
        return weight.to(torch.bfloat16).float()
    whole, scale = in_int8(weight)
    return whole * scale.unsqueeze(1)


@pytest.mark.parametrize("precision", ["bf16", "int8"])
@torch.no_grad()
def test_reduced_precision_is_that_of_the_lstm_weights_and_of_nothing_else(precision: InferencePrecision) -> None:
    needs(precision)
    model = compiled_voice()
    reduced, exact = said_by(loop_of(model, precision)), said_by(loop_of(model))
    for cell in (model.decoder.attention_rnn, model.decoder.decoder_rnn):
        heard = cell.weight_ih.size(1) - 64  # the context's columns come last, and are rounded apart
        for part in (cell.weight_ih[:, :heard], cell.weight_ih[:, heard:], cell.weight_hh):
            part.copy_(rounded(part, precision))
    expected = said_by(loop_of(model))
    # bf16 multiplies states in fp32, int8 in 16 bits
    within = {"bf16": ROUNDING, "int8": 2e-4}[precision]
    for name in DecodedSteps._fields:
        torch.testing.assert_close(getattr(reduced, name), getattr(expected, name), rtol=0.0, atol=within)
    assert float((reduced.projected - exact.projected).abs().max()) > 5 * within


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_products_of_every_symbol_are_rounded_too(precision: InferencePrecision) -> None:
    needs(precision)
    model = compiled_voice()
    [exact] = speak(model, "auto", n=1)
    model.decoder.prepare_for_inference(precision)
    [reduced] = speak(model, "auto", n=1)
    error = float((exact.mel - reduced.mel).abs().max() / exact.mel.abs().max())
    assert 1e-4 < error < 0.05


def test_int8_weights_take_little_more_than_a_quarter_of_the_bytes() -> None:
    decoder = compiled_voice().decoder
    large = ("from_prenet", "attention_recurrent", "decoder_input", "decoder_recurrent")
    sizes = [
        sum(CompiledWeights(decoder, precision=precision).buffers[name].nbytes for name in large)
        for precision in ("fp32", "bf16", "int8")
    ]
    assert sizes[1] / sizes[0] == pytest.approx(0.5, abs=0.03)  # rows are filled up to 32
    assert sizes[2] / sizes[0] == pytest.approx(0.25, abs=0.05)  # and each column has a scale and a sum


def test_a_voice_from_disk_speaks_in_the_precision_that_it_is_asked_for(tiny: Tiny, tmp_path: Path) -> None:
    needs("int8")
    hp = tiny(",".join(f"{name}={width}" for name, width in WIDTHS.items()))
    path, mels = save_voice(hp, load_corpus(hp), tmp_path), []
    for asked, precision in (("fp32", "fp32"), ("bf16", "bf16"), ("auto", "int8")):
        speaker = Speaker.load(path, precision=asked)
        prepared = speaker.model.decoder.prepared
        assert isinstance(prepared, CompiledWeights) and prepared.precision == precision
        mels.append(speaker.speak(["hi"], n_iter=1)[0].sample.mel)
    assert not any(np.array_equal(mels[0], mel) for mel in mels[1:])
    for mel in mels[1:]:
        np.testing.assert_allclose(mel, mels[0], atol=0.05)  # of a few units


def test_int8_wants_a_processor_that_multiplies_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = compiled_voice().decoder
    monkeypatch.setattr(native_inference, "processor_flags", lambda: "avx512f")
    assert "no int8 instructions" in str(why_unsupported(decoder, "int8"))
    assert why_unsupported(decoder, "bf16") is None and why_unsupported(decoder, "fp32") is None


# ---- what the compiled loop does not know


@pytest.mark.parametrize(
    "settings",
    [
        "use_forward_attention=True", "use_attention_smoothing=True", "use_location_sensitive_attention=False",
        "decoder_backend=fast", "decoder_backend=plain",
    ],
)  # fmt: skip
def test_other_attention_and_other_backends_speak_in_pytorch(settings: str) -> None:
    assert not is_compiled(voice(settings, widths=COVERED, dtype=torch.float32).decoder)


def test_other_widths_and_types_speak_in_pytorch() -> None:
    assert not is_compiled(voice(widths=SMALL, dtype=torch.float32).decoder)
    assert not is_compiled(voice(widths=COVERED, dtype=torch.float64).decoder)
