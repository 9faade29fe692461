"""The fast decoder computes what the plain one does: outputs and every gradient."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from hparams import create_hparams
from kernels import products
from kernels.teacher_forced import fast_teacher_forced
from layers import dropout_mask
from model import Decoder, Memory

Result = tuple[Tensor, Tensor]

SMALL = ",".join((
    "prenet_dim=6", "encoder_embedding_dim=10", "attention_rnn_dim=12", "decoder_rnn_dim=8", "attention_dim=7",
    "attention_location_n_filters=3", "attention_location_kernel_size=5", "n_mel_channels=4",
))


@dataclass(frozen=True)
class Case:
    B: int = 3
    T_dec: int = 9
    T_text: int = 11
    use_masks: bool = True
    use_features: bool = True
    use_alignments: bool = True
    overrides: str = SMALL
    dtype: torch.dtype = torch.float64


@dataclass(frozen=True)
class Inputs:
    decoder: Decoder
    prenet_out: Tensor
    memory: Memory
    masks: tuple[Tensor | None, Tensor | None]

    def plain(self) -> Result:
        return self.decoder.plain_teacher_forced(self.prenet_out, self.memory, self.masks)

    def fast(self, compute_dtype: torch.dtype | None = None) -> Result:
        return fast_teacher_forced(
            self.decoder, self.prenet_out, self.memory, self.masks, compute_dtype=compute_dtype
        )

    def leaves(self) -> dict[str, Tensor]:
        """Everything that both ways reach and that wants a gradient."""
        used = ("attention_rnn", "attention_layer", "decoder_rnn")
        named = {k: p for k, p in self.decoder.named_parameters() if k.startswith(used) and "memory_layer" not in k}
        named |= {"prenet_out": self.prenet_out, "values": self.memory.values, "keys": self.memory.keys}
        return {name: leaf for name, leaf in named.items() if leaf.requires_grad}


def inputs_of(case: Case) -> Inputs:
    generator = torch.Generator().manual_seed(5)
    torch.manual_seed(5)
    hp = create_hparams(case.overrides)
    decoder = Decoder(hp).to(case.dtype)

    def leaf(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=case.dtype).requires_grad_()

    B, T_dec, T_text = case.B, case.T_dec, case.T_text
    lengths = (T_text - 2 * torch.arange(B)).clamp(min=1)
    memory = Memory(
        values=leaf(B, T_text, hp.encoder_embedding_dim), keys=leaf(B, T_text, hp.attention_dim),
        padding=torch.arange(T_text)[None] >= lengths[:, None],
    )
    prenet_out = leaf(T_dec, B, hp.prenet_dim)
    rates = (0.1, 0.3) if case.use_masks else (0.0, 0.0)
    widths = (hp.attention_rnn_dim, hp.decoder_rnn_dim)
    masks = [
        dropout_mask((T_dec, B, width), rate, like=prenet_out.detach(), generator=generator)
        for width, rate in zip(widths, rates, strict=True)
    ]
    return Inputs(decoder, prenet_out, memory, (masks[0], masks[1]))


def loss_of(result: Result, *, use_features: bool = True, use_alignments: bool = True) -> Tensor:
    """Weights every output by its own fixed random factor, so that no gradient cancels."""
    generator = torch.Generator().manual_seed(9)
    loss = result[0].new_zeros(())
    for output, is_used in zip(result, (use_features, use_alignments), strict=True):
        factors = torch.randn(output.shape, generator=generator, dtype=output.dtype)
        loss = loss + (output * factors).sum() if is_used else loss
    return loss


def gradients(loss: Tensor, inputs: Inputs, *, retain_graph: bool = False) -> dict[str, Tensor]:
    leaves = inputs.leaves()
    found = torch.autograd.grad(
        loss, list(leaves.values()), allow_unused=True, materialize_grads=True, retain_graph=retain_graph
    )
    return dict(zip(leaves, found, strict=True))


def by_name(result: Result) -> dict[str, Tensor]:
    return dict(zip(("features", "alignments"), result, strict=True))


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Largest difference as a part of the largest expected value."""
    difference = (actual - expected).detach().abs().max()
    return float(difference / expected.detach().abs().max().clamp(min=1e-30))


def assert_equal(actual: dict[str, Tensor], expected: dict[str, Tensor], *, within: float) -> None:
    errors = {name: relative_error(actual[name], expected[name]) for name in expected}
    assert errors and {name: error for name, error in errors.items() if not error <= within} == {}


CASES = {
    "typical": Case(),
    "one utterance": Case(B=1),
    "one step": Case(T_dec=1),
    "one symbol": Case(T_text=1),
    "one of each": Case(B=1, T_dec=1, T_text=1),
    "text shorter than the kernel": Case(T_text=3),
    "no dropout": Case(use_masks=False),
    "alignments unused": Case(use_alignments=False),
    "features unused": Case(use_features=False),
    "kernel of one": Case(overrides=SMALL.replace("kernel_size=5", "kernel_size=1")),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("steps_at_once", [1, 4, 1000])
def test_fast_and_plain_agree_in_double_precision(
    case: Case, steps_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kernels.loops.chunk_steps", lambda elements_per_step: steps_at_once)
    inputs = inputs_of(case)
    fast, plain = inputs.fast(), inputs.plain()
    assert_equal(by_name(fast), by_name(plain), within=1e-10)
    used = {"use_features": case.use_features, "use_alignments": case.use_alignments}
    grads, expected = gradients(loss_of(fast, **used), inputs), gradients(loss_of(plain, **used), inputs)
    assert_equal(grads, expected, within=1e-10)


PACKED = Case(
    B=4, T_dec=20, T_text=17, dtype=torch.float32,
    overrides="prenet_dim=32,encoder_embedding_dim=64,attention_rnn_dim=192,decoder_rnn_dim=192,attention_dim=32",
)


@pytest.mark.parametrize("is_packed", [True, False])
def test_fast_and_plain_agree_in_single_precision(is_packed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if is_packed and not products.can_pack(torch.float32):
        pytest.skip("this build of PyTorch has no packed products")
    monkeypatch.setattr(products, "can_pack", lambda dtype: is_packed)
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
        "prenet_out": [inputs.prenet_out], "values": [inputs.memory.values], "keys": [inputs.memory.keys],
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
