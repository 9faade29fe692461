"""Cases on which the fast loops must equal the loops by definition, forward and backward."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from hparams import create_hparams
from kernels import native
from kernels.teacher_forced import fast_teacher_forced
from layers import dropout_mask
from model import Decoder, Memory

Result = tuple[Tensor, Tensor]

SMALL = ",".join(
    (
        "prenet_dim=6",
        "encoder_embedding_dim=10",
        "attention_rnn_dim=12",
        "decoder_rnn_dim=8",
        "attention_dim=7",
        "attention_location_n_filters=3",
        "attention_location_kernel_size=5",
        "n_mel_channels=4",
    )
)


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
        return self.decoder.reference_teacher_forced(self.prenet_out, self.memory, self.masks)

    def fast(self, compute_dtype: torch.dtype | None = None) -> Result:
        return fast_teacher_forced(self.decoder, self.prenet_out, self.memory, self.masks, compute_dtype=compute_dtype)

    def leaves(self) -> dict[str, Tensor]:
        """Everything that both ways reach and that wants a gradient."""
        used = ("attention_rnn", "attention_layer", "decoder_rnn")
        named = {k: p for k, p in self.decoder.named_parameters() if k.startswith(used) and "memory_layer" not in k}
        named |= {"prenet_out": self.prenet_out, "values": self.memory.values, "keys": self.memory.keys}
        return {name: leaf for name, leaf in named.items() if leaf.requires_grad}


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


PACKED = Case(
    B=4,
    T_dec=20,
    T_text=17,
    dtype=torch.float32,
    overrides="prenet_dim=32,encoder_embedding_dim=64,attention_rnn_dim=192,decoder_rnn_dim=192,attention_dim=32",
)


needs_native = pytest.mark.skipif(native.loaded() is None, reason="needs a C++ compiler and AVX2 or AVX-512")


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
        values=leaf(B, T_text, hp.encoder_embedding_dim),
        keys=leaf(B, T_text, hp.attention_dim),
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
