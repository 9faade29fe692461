"""Cases on which the fast loops must equal the loops by definition, forward and backward."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from kernels import native
from kernels.teacher_forced import fast_teacher_forced
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
        return self.decoder.plain_teacher_forced(self.prenet_out, self.memory, self.masks)

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


needs_native = pytest.mark.skipif(native.loaded() is None, reason="needs a C++ compiler and AVX-512")
