"""The fast decoder computes what the plain one does: outputs and every gradient."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from common.log import LOG
from kernels import matmul, native
from kernels.encoder_lstm import OneDirection, bidirectional_lstm, library_lstm, loop_lstm
from kernels.teacher_forced import fast_teacher_forced
from support.kernels import (
    CASES,
    PACKED,
    SMALL,
    Case,
    Inputs,
    Result,
    assert_equal,
    by_name,
    gradients,
    inputs_of,
    loss_of,
    needs_native,
    relative_error,
)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("steps_at_once", [1, 4, 1000])
def test_fast_and_plain_agree_in_double_precision(
    case: Case, steps_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kernels.decoder_steps.chunk_steps", lambda elements_per_step, device: steps_at_once)
    inputs = inputs_of(case)
    fast, plain = inputs.fast(), inputs.plain()
    assert_equal(by_name(fast), by_name(plain), within=1e-10)
    used = {"use_features": case.use_features, "use_alignments": case.use_alignments}
    grads, expected = gradients(loss_of(fast, **used), inputs), gradients(loss_of(plain, **used), inputs)
    assert_equal(grads, expected, within=1e-10)


@pytest.mark.parametrize("is_packed", [True, False])
def test_fast_and_plain_agree_in_single_precision(is_packed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if is_packed and not matmul.can_pack(torch.float32):
        pytest.skip("this build of PyTorch has no packed products")
    monkeypatch.setattr(matmul, "can_pack", lambda dtype: is_packed)
    inputs = inputs_of(PACKED)
    fast, plain = inputs.fast(), inputs.plain()
    # 20 steps of rounding in another order; the error grows with the steps, not with the widths
    assert_equal(by_name(fast), by_name(plain), within=1e-5)
    assert_equal(gradients(loss_of(fast), inputs), gradients(loss_of(plain), inputs), within=1e-5)


def test_a_second_backward_through_the_same_graph_gives_the_same_gradients() -> None:
    inputs = inputs_of(Case())
    loss = loss_of(inputs.fast())
    first = gradients(loss, inputs, retain_graph=True)
    assert_equal(gradients(loss, inputs), first, within=0.0)


def test_gradients_of_two_uses_in_one_graph_add_up() -> None:
    inputs = inputs_of(Case())
    single = gradients(loss_of(inputs.fast()), inputs)
    both = gradients(loss_of(inputs.fast()) + 2.0 * loss_of(inputs.fast()), inputs)
    assert_equal(both, {name: 3.0 * grad for name, grad in single.items()}, within=1e-12)


def test_without_gradients_the_outputs_are_the_same() -> None:
    inputs = inputs_of(Case())
    with torch.no_grad():
        fast, plain = inputs.fast(), inputs.plain()
    assert not fast[0].requires_grad and not fast[1].requires_grad
    assert_equal(by_name(fast), by_name(plain), within=1e-10)


@pytest.mark.parametrize("frozen", ["prenet_out", "values", "keys", "attention", "all but keys"])
def test_what_wants_no_gradient_changes_no_other_gradient(frozen: str) -> None:
    inputs = inputs_of(Case())
    groups = {
        "prenet_out": [inputs.prenet_out],
        "values": [inputs.memory.values],
        "keys": [inputs.memory.keys],
        "attention": list(inputs.decoder.attention_layer.parameters()),
        "all but keys": [inputs.prenet_out, inputs.memory.values, *inputs.decoder.parameters()],
    }
    for leaf in groups[frozen]:
        leaf.requires_grad_(False)
    grads, expected = gradients(loss_of(inputs.fast()), inputs), gradients(loss_of(inputs.plain()), inputs)
    assert_equal(grads, expected, within=1e-10)


def test_incoming_gradients_need_not_be_contiguous() -> None:
    inputs = inputs_of(Case())

    def loss(result: Result) -> Tensor:
        return result[0].sum() + result[1].transpose(0, 2).cumsum(0).square().sum()

    assert_equal(gradients(loss(inputs.fast()), inputs), gradients(loss(inputs.plain()), inputs), within=1e-10)


def test_products_in_bfloat16_stay_near_single_precision() -> None:
    inputs = inputs_of(PACKED)
    exact, rounded = inputs.fast(), inputs.fast(torch.bfloat16)
    assert rounded[0].dtype == torch.float32 and not torch.equal(rounded[0], exact[0])
    # bfloat16 keeps 8 bits: a factor is off by up to 0.4 %, and errors of many factors average out
    assert relative_error(rounded[0], exact[0]) < 0.02
    grads, expected = gradients(loss_of(rounded), inputs), gradients(loss_of(exact), inputs)
    assert_equal(grads, expected, within=0.1)


def test_autocast_around_the_call_does_not_change_it() -> None:
    inputs = inputs_of(PACKED)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = inputs.fast()
    outside = inputs.fast()
    assert_equal(by_name(inside), by_name(outside), within=0.0)
    assert_equal(gradients(loss_of(inside), inputs), gradients(loss_of(outside), inputs), within=0.0)


WIDE = "prenet_dim=32,encoder_embedding_dim=128,attention_rnn_dim=192,decoder_rnn_dim=128,attention_dim=64"
NATIVE_CASES = {
    "typical": Case(B=5, T_dec=33, T_text=40),
    "more utterances than a tile has rows": Case(B=17, T_dec=7, T_text=33),
    "one utterance": Case(B=1, T_dec=12, T_text=31),
    "one step": Case(B=3, T_dec=1, T_text=7),
    "one symbol": Case(B=1, T_dec=5, T_text=1),
    "no dropout": Case(B=2, T_dec=9, T_text=17, use_masks=False),
    "kernel of one": Case(B=2, T_dec=9, T_text=17, overrides="attention_location_kernel_size=1"),
}


def native_and_exact(case: Case) -> tuple[Inputs, Inputs]:
    """The same inputs in single precision, which the compiled loops take, and in double."""
    overrides = ",".join(filter(None, (WIDE, case.overrides if case.overrides != SMALL else "")))
    single, double = (inputs_of(replace(case, overrides=overrides, dtype=d)) for d in (torch.float32, torch.float64))
    with torch.no_grad():
        single.decoder.load_state_dict(double.decoder.state_dict())
        for name in ("values", "keys"):
            getattr(single.memory, name).copy_(getattr(double.memory, name))
        single.prenet_out.copy_(double.prenet_out)
    masks = [None if mask is None else mask.float() for mask in double.masks]
    return replace(single, masks=(masks[0], masks[1])), double


def natively(inputs: Inputs, dtype: torch.dtype | None = None) -> Result:
    features, alignments = fast_teacher_forced(
        inputs.decoder, inputs.prenet_out, inputs.memory, inputs.masks, compute_dtype=dtype, is_native=True
    )
    return features.to(alignments.dtype), alignments


def same_loss(result: Result, case: Case) -> Tensor:
    """As `loss_of`, with factors that do not depend on the type."""
    generator = torch.Generator().manual_seed(9)
    factors = [torch.randn(o.shape, generator=generator, dtype=torch.float64) for o in result]
    used = (case.use_features, case.use_alignments)
    return torch.stack([(o * f.to(o.dtype)).sum() for o, f, u in zip(result, factors, used, strict=True) if u]).sum()


@needs_native
@pytest.mark.parametrize("case", NATIVE_CASES.values(), ids=NATIVE_CASES)
@pytest.mark.parametrize(("dtype", "forward", "backward"), [(None, 1e-6, 5e-6), (torch.bfloat16, 0.01, 0.03)])
@pytest.mark.parametrize("steps_of_a_chunk", [1000, 7, 1])
def test_compiled_loops_agree_with_the_definition_in_double_precision(
    case: Case, dtype: torch.dtype | None, forward: float, backward: float, steps_of_a_chunk: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("kernels.native_loops.ROWS_OF_A_CHUNK", steps_of_a_chunk * case.B)
    single, double = native_and_exact(case)
    result, exact = natively(single, dtype), double.plain()
    assert_equal(by_name(result), by_name(exact), within=forward)
    grads, expected = gradients(same_loss(result, case), single), gradients(same_loss(exact, case), double)
    assert_equal(grads, expected, within=backward)


@needs_native
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_compiled_loops_give_the_same_bits_with_any_number_of_threads(dtype: torch.dtype | None) -> None:
    inputs, case = native_and_exact(NATIVE_CASES["typical"])[0], NATIVE_CASES["typical"]
    found, before = [], torch.get_num_threads()
    try:
        for n_threads in (1, 2, 3):
            torch.set_num_threads(n_threads)
            result = natively(inputs, dtype)
            found.append(by_name(result) | gradients(same_loss(result, case), inputs))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert_equal(other, found[0], within=0.0)


@needs_native
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_a_second_backward_through_the_compiled_loops_gives_the_same_gradients(dtype: torch.dtype | None) -> None:
    inputs, case = native_and_exact(NATIVE_CASES["typical"])[0], NATIVE_CASES["typical"]
    loss = same_loss(natively(inputs, dtype), case)
    first = gradients(loss, inputs, retain_graph=True)
    assert_equal(gradients(loss, inputs), first, within=0.0)


@needs_native
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_compiled_loops_hand_on_what_is_not_a_number(dtype: torch.dtype | None) -> None:
    inputs = native_and_exact(NATIVE_CASES["typical"])[0]
    with torch.no_grad():
        inputs.prenet_out[3, 2, 1] = float("nan")
    features, alignments = natively(inputs, dtype)
    assert features[:3].isfinite().all() and features[3:, [0, 1, 3, 4]].isfinite().all()
    assert features[3:, 2].isnan().all() and alignments[3:, 2, :1].isnan().all()


@pytest.mark.parametrize("is_packed", [True, False])
@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 1e-6), (torch.bfloat16, 0.01)])
def test_products_of_all_steps_agree_with_double_precision(
    dtype: torch.dtype, within: float, is_packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_packed and not matmul.can_pack(torch.float32):
        pytest.skip("this build of PyTorch packs no weights")
    monkeypatch.setattr(matmul, "prefers_packed_fp32", lambda: is_packed)
    monkeypatch.setattr(matmul, "MULTIPLIED_AT_ONCE", 100)
    monkeypatch.setattr(matmul, "SUMMED_AT_ONCE", 100)
    x, weight = torch.randn(250, 400).to(dtype).requires_grad_(), torch.randn(350, 400, requires_grad=True)
    grad = torch.randn(250, 350).to(dtype)
    y = matmul.DeferredLinear.apply(x, weight)
    found = (y, *torch.autograd.grad(y, (x, weight), grad), matmul.column_sums(grad, torch.float32))
    rows, wide, grads = x.detach().double(), weight.detach().to(dtype).double(), grad.double()
    exact = (rows @ wide.t(), grads @ wide, grads.t() @ rows, grads.sum(0))
    names = ("y", "x", "weight", "sums")
    assert [tensor.dtype for tensor in found] == [dtype, dtype, torch.float32, torch.float32]
    assert_equal(dict(zip(names, found, strict=True)), dict(zip(names, exact, strict=True)), within=within)


@pytest.mark.parametrize(("vendor", "expected"), [("AuthenticAMD", True), ("GenuineIntel", False), ("", False)])
def test_fp32_products_are_packed_where_mkl_leaves_half_of_the_processor_idle(
    vendor: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: f"processor : 0\nvendor_id\t: {vendor}\n" if vendor else "")
    monkeypatch.setattr(matmul, "can_pack", lambda dtype: True)
    assert matmul.prefers_packed_fp32.__wrapped__() is expected


def test_without_a_compiler_the_loops_run_in_pytorch_and_say_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(native, "processor_flags", lambda: "avx512f")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    with caplog.at_level("INFO", logger=LOG.name):
        assert native.loaded.__wrapped__() is None
    assert "no C++ compiler found" in caplog.text


@needs_native
def test_a_source_that_does_not_compile_is_reported_with_the_compilers_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = tmp_path / "broken.cpp"
    broken.write_text("int main() { return nothing; }")
    monkeypatch.setattr(native, "SOURCES", (broken,))
    monkeypatch.setenv("TACOTRON2_CACHE", str(tmp_path / "cache"))
    with caplog.at_level("INFO", logger=LOG.name):
        assert native.loaded.__wrapped__() is None
    assert "can't compile broken.cpp" in caplog.text


DIRECTIONS = {
    "loops in PyTorch": (loop_lstm(compute_dtype=None, is_native=False), 1e-5),
    "compiled loops": (loop_lstm(compute_dtype=None, is_native=True), 1e-5),
    "loops in PyTorch, bf16": (loop_lstm(compute_dtype=torch.bfloat16, is_native=False), 0.03),
    "compiled loops, bf16": (loop_lstm(compute_dtype=torch.bfloat16, is_native=True), 0.03),
    "the library's LSTM": (library_lstm, 1e-5),
}


@pytest.mark.parametrize("width", [64, 6])
@pytest.mark.parametrize(("run", "within"), DIRECTIONS.values(), ids=DIRECTIONS)
def test_both_directions_equal_the_lstm_on_packed_texts(run: OneDirection, within: float, width: int) -> None:
    torch.manual_seed(3)
    lstm, lengths = nn.LSTM(64, width, batch_first=True, bidirectional=True), torch.tensor([13, 4, 1, 9, 7])
    x = torch.randn(5, 13, 64, requires_grad=True)
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    expected = pad_packed_sequence(lstm(packed)[0], batch_first=True)[0]
    found = bidirectional_lstm(lstm, x, lengths, run).float()
    factors, leaves = torch.randn_like(expected), {"x": x, **dict(lstm.named_parameters())}

    def grads(y: Tensor) -> dict[str, Tensor]:
        return dict(zip(leaves, torch.autograd.grad((y * factors).sum(), list(leaves.values())), strict=True))

    assert_equal({"states": found}, {"states": expected}, within=within)
    assert_equal(grads(found), grads(expected), within=within)
