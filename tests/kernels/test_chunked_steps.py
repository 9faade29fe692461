"""Loops cut into chunks on fixed buffers compute what whole ones do, whatever lay in the buffers before."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from kernels import chunked_steps, matmul, teacher_forced
from kernels.ctc import ctc_losses
from kernels.teacher_forced import fast_teacher_forced
from support.kernels import CASES, PACKED, Case, Inputs, Result, assert_equal, by_name, gradients, inputs_of, loss_of
from support.tape import Tape, taped


@pytest.fixture(autouse=True)
def recordings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Chunks are recorded and replayed as on a GPU; every test begins without fixed buffers and leaves none behind."""
    monkeypatch.setattr(chunked_steps, "record_graph", taped)
    monkeypatch.setattr(matmul, "can_pack", lambda dtype: False)  # which is a CPU's way to lay out weights
    chunked_steps.chunk_for.cache_clear()
    yield
    chunked_steps.chunk_for.cache_clear()


def chunked(inputs: Inputs, *, size: int = 4, dtype: torch.dtype | None = None) -> Result:
    return fast_teacher_forced(
        inputs.decoder, inputs.prenet_out, inputs.memory, inputs.masks, compute_dtype=dtype, chunk=size
    )


def everything(result: Result, inputs: Inputs) -> dict[str, Tensor]:
    return by_name(result) | gradients(loss_of(result), inputs)


def poison() -> int:
    """Fills every fixed buffer with what no computation survives. -> how many there are"""
    buffers = list(chunked_steps.fixed_buffers.values())
    for buffer in buffers:
        buffer.fill_(float("nan"))
    return len(buffers)


@pytest.mark.parametrize("size", [1, 4, 9, 32])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_chunks_compute_what_the_whole_does(case: Case, size: int) -> None:
    inputs = inputs_of(case)
    # double precision: what is left is the other order of sums over a text that was filled up
    assert_equal(everything(chunked(inputs, size=size), inputs), everything(inputs.fast(), inputs), within=1e-12)


@pytest.mark.parametrize(("dtype", "within"), [(None, 1e-5), (torch.bfloat16, 0.02)])
def test_chunks_compute_what_the_whole_does_in_lower_precision(dtype: torch.dtype | None, within: float) -> None:
    inputs = inputs_of(PACKED)
    assert_equal(
        everything(chunked(inputs, size=8, dtype=dtype), inputs), everything(inputs.fast(dtype), inputs), within=within
    )


@pytest.mark.parametrize("multiple", [1, 13, 64])
def test_how_far_texts_are_filled_up_changes_only_rounding(multiple: int, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = inputs_of(Case())
    expected = everything(inputs.fast(), inputs)
    monkeypatch.setattr(teacher_forced, "TEXT_MULTIPLE", multiple)
    assert_equal(everything(chunked(inputs), inputs), expected, within=1e-12)


def test_nothing_stale_is_read_from_fixed_buffers() -> None:
    inputs = inputs_of(Case())
    first = everything(chunked(inputs), inputs)
    assert poison() > 20
    result = chunked(inputs)
    poison()
    assert_equal(by_name(result) | gradients(loss_of(result), inputs), first, within=0.0)


def test_other_passes_between_forward_and_backward_change_nothing() -> None:
    """As with a second decoder, micro-batches, MMI's two backwards, and a validation in between."""
    inputs, others = inputs_of(Case()), inputs_of(Case(T_dec=6, T_text=40))
    alone, others_alone = everything(chunked(inputs), inputs), everything(chunked(others), others)
    with torch.no_grad():
        for parameter in others.decoder.parameters():
            parameter.mul_(0.5)
    result, other = chunked(inputs), chunked(others)
    changed = everything(other, others)
    assert not torch.equal(changed["features"], others_alone["features"])
    for _ in range(2):
        with torch.no_grad():
            chunked(others)
        grads = gradients(loss_of(result), inputs, retain_graph=True)
        assert_equal(by_name(result) | grads, alone, within=0.0)
    gradients(loss_of(result) + loss_of(chunked(inputs)), inputs)


def test_what_autograd_keeps_lies_in_no_fixed_buffer() -> None:
    inputs, kept = inputs_of(Case()), []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor.untyped_storage().data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        chunked(inputs)
    fixed = {buffer.untyped_storage().data_ptr() for buffer in chunked_steps.fixed_buffers.values()}
    assert len(kept) > 15 and fixed and not fixed & set(kept)


def test_weights_are_read_anew_in_every_pass() -> None:
    inputs = inputs_of(Case())
    chunked(inputs)
    with torch.no_grad():
        for parameter in inputs.decoder.parameters():
            parameter.mul_(1.5)
    assert_equal(everything(chunked(inputs), inputs), everything(inputs.fast(), inputs), within=1e-12)


def test_a_recording_serves_every_number_of_steps_and_texts_of_about_the_same_length() -> None:
    for T_dec, T_text in ((9, 11), (30, 11), (4, 29)):
        inputs = inputs_of(Case(T_dec=T_dec, T_text=T_text))
        everything(chunked(inputs), inputs)
    assert chunked_steps.chunk_for.cache_info().misses == 4  # two loops there and back
    inputs = inputs_of(Case(T_text=33))
    everything(chunked(inputs), inputs)
    assert chunked_steps.chunk_for.cache_info().misses == 6  # the decoder LSTM knows of no text


def test_recordings_share_the_buffers_that_do_not_depend_on_the_text() -> None:
    for T_text in (11, 40):
        chunked(inputs_of(Case(T_text=T_text)))
    names = Counter(spec.name for spec in chunked_steps.fixed_buffers)
    assert names["gates"] == 2  # of two loops of other widths
    assert names["alignments"] == 2  # of two text lengths


def test_what_was_forgotten_is_recorded_again_and_its_buffers_are_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    few = lru_cache(maxsize=2)(chunked_steps.chunk_for.__wrapped__)
    monkeypatch.setattr(chunked_steps, "chunk_for", few)
    inputs, others = inputs_of(Case()), inputs_of(Case(B=2, T_text=40))
    expected = [everything(each.fast(), each) for each in (inputs, others)]
    results = [chunked(inputs), chunked(others)]
    for each, result, whole in zip((inputs, others), results, expected, strict=True):
        assert_equal(by_name(result) | gradients(loss_of(result), each), whole, within=1e-12)
    assert few.cache_info().misses == 8 and few.cache_info().currsize == 2
    few.cache_clear()
    assert len(chunked_steps.fixed_buffers) == 0


def test_an_utterance_that_is_not_a_number_leaves_the_others_alone() -> None:
    inputs = inputs_of(Case())
    with torch.no_grad():
        inputs.prenet_out[3, 2, 1] = float("nan")
    features, alignments = chunked(inputs)
    assert features[:3].isfinite().all() and features[:, :2].isfinite().all() and alignments[:, :2].isfinite().all()
    assert features[3:, 2].isnan().all()
    clean = inputs_of(Case())
    assert_equal(by_name(chunked(clean)), by_name(clean.fast()), within=1e-12)


def test_without_masks_after_masks_nothing_is_dropped() -> None:
    inputs = inputs_of(Case())
    chunked(inputs)
    undropped = replace(inputs, masks=(None, None))
    assert_equal(by_name(chunked(undropped)), by_name(undropped.fast()), within=1e-12)


def test_a_step_in_bfloat16_starts_few_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU each is a kernel of a microsecond or two: there and back through both loops (docs/performance.md)."""
    tapes: list[Tape] = []

    def kept(work: Callable[[], None], device: torch.device) -> Tape:
        tapes.append(taped(work, device))
        return tapes[-1]

    monkeypatch.setattr(chunked_steps, "record_graph", kept)
    monkeypatch.setattr("kernels.decoder_steps.is_gpu", lambda device: True)
    inputs = inputs_of(replace(PACKED, T_dec=32))
    everything(chunked(inputs, size=32, dtype=torch.bfloat16), inputs)
    attention, recurrent, recurrent_back, attention_back = (tape.n_kernels / 32 for tape in tapes)
    assert round(attention + recurrent) == 35
    assert round(recurrent_back + attention_back) == 23


# ---- CTC


@pytest.mark.parametrize("size", [None, 4, 32])
@pytest.mark.parametrize(("dtype", "within"), [(torch.float64, 1e-11), (torch.float32, 1e-4)])
def test_ctc_without_lengths_on_the_host_is_pytorchs(size: int | None, dtype: torch.dtype, within: float) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(23, 5, 7, generator=generator, dtype=dtype).mul_(2.0).requires_grad_()
    targets = torch.randint(0, 6, (5, 6), generator=generator)
    targets[0, :3] = 2  # a symbol thrice, which needs blanks between
    steps, lengths = torch.tensor([23, 20, 5, 9, 3]), torch.tensor([6, 4, 0, 3, 6])  # an empty text, one too long
    factors = torch.randn(5, generator=generator, dtype=dtype)
    log_probs = logits.log_softmax(2)
    found = ctc_losses(log_probs, targets, steps, lengths, chunk=size)
    expected = F.ctc_loss(log_probs, targets, steps, lengths, blank=6, reduction="none", zero_infinity=True)
    assert (expected == 0).tolist() == [False, False, False, False, True]
    torch.testing.assert_close(found, expected, rtol=within, atol=within)
    grads = [torch.autograd.grad((x * factors).sum(), logits, retain_graph=True)[0] for x in (found, expected)]
    torch.testing.assert_close(*grads, rtol=within, atol=within)


def test_ctc_may_be_walked_twice_and_buffers_may_be_poisoned_between() -> None:
    logits = torch.randn(9, 2, 5, generator=torch.Generator().manual_seed(3)).requires_grad_()
    targets, steps, lengths = torch.tensor([[1, 2], [3, 3]]), torch.tensor([9, 7]), torch.tensor([2, 2])
    loss = ctc_losses(logits.log_softmax(2), targets, steps, lengths, chunk=4).sum()
    first = torch.autograd.grad(loss, logits, retain_graph=True)[0]
    assert poison() > 2
    again = ctc_losses(logits.log_softmax(2), targets, steps, lengths, chunk=4).sum()
    assert torch.equal(again, loss) and torch.equal(torch.autograd.grad(loss, logits)[0], first)
