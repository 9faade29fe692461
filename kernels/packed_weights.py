"""InferenceWeights laid out for products with few rows at a time, of which reading the weights is nearly all the cost.

One step of full-size speech reads 60 MB of them and uses each number once, so half the bytes are nearly half the time.
"""

from functools import cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from kernels.matmul import PACKING_PAYS_FROM, can_pack, packed_product

InferencePrecision = Literal["fp32", "bf16", "int8"]
PrecisionChoice = Literal["fp32", "bf16", "int8", "auto"]  # auto: the fastest that there is

NO_VNNI = "this processor has no int8 instructions (VNNI)"
INT8_LARGEST, INT8_ZERO = 127, 128  # x is stored as 1 to 255: what the processor multiplies by signed weights


class Matrix:
    """`base + x @ weight.T` for one weight [out, in] and many x [n_rows, in].

    bf16 rounds weight, x and their product, int8 weight (by a scale for each row) and x (by one scale); the sum keeps
    the type of base. In fp32 on one row the weight is read where it is, neither copied nor packed. `bound`: no x is
    larger, so that its scale needs not be looked for.
    """

    def __init__(
        self, weight: Tensor, *, n_rows: int, precision: InferencePrecision = "fp32", bound: float | None = None
    ) -> None:
        self.weight, self.precision, self.bound = weight.detach(), precision, bound
        on_cpu = weight.device.type == "cpu"
        self.is_vector, self.is_packed = n_rows == 1 and on_cpu, False
        if precision == "int8":
            whole, self.scale = in_int8(self.weight)
            self.weight = torch.ops.onednn.qlinear_prepack(whole, [n_rows, whole.size(1)])
            self.zeros = torch.zeros_like(self.scale, dtype=torch.int32)
            return
        if precision == "bf16":
            self.weight = self.weight.to(torch.bfloat16)
        packs = on_cpu and not self.is_vector and weight.numel() >= PACKING_PAYS_FROM
        self.is_packed = packs and can_pack(self.weight.dtype)
        if self.is_packed:
            self.weight = torch.ops.mkldnn._reorder_linear_weight(self.weight.contiguous(), n_rows)

    def add(self, base: Tensor, x: Tensor, *, out: Tensor) -> None:
        """base, out [n_rows, out] (may be the same tensor), x [n_rows, in]."""
        if self.precision == "int8":
            torch.add(base, self._in_int8(x), out=out)
        elif self.precision == "bf16":
            torch.add(base, self._in_bfloat16(x.to(torch.bfloat16)), out=out)
        elif self.is_packed:
            torch.add(base, packed_product(x, self.weight), out=out)
        elif self.is_vector:
            torch.addmv(base[0], self.weight, x[0], out=out[0])
        else:
            torch.addmm(base, x, self.weight.t(), out=out)

    def of_rows(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out], any number of rows; not for speed."""
        if self.precision == "int8":
            return self._in_int8(x.flatten(0, -2)).view(*x.shape[:-1], -1)
        multiply = packed_product if self.is_packed else F.linear
        return multiply(x.to(self.weight.dtype), self.weight).to(x.dtype)

    def _in_bfloat16(self, x: Tensor) -> Tensor:
        if self.is_vector:
            return torch.mv(self.weight, x[0])
        return packed_product(x, self.weight) if self.is_packed else F.linear(x, self.weight)

    def _in_int8(self, x: Tensor) -> Tensor:
        largest = (float(x.abs().amax()) or 1.0) if self.bound is None else self.bound
        scale = largest / INT8_LARGEST
        whole = torch.add(INT8_ZERO + 0.5, x, alpha=1.0 / scale).to(torch.uint8)
        return int8_product(whole, scale, self.weight, self.scale, self.zeros)


class SparseColumns:
    """As `Matrix` in fp32, for one x on a CPU of which most is zero: only the columns that count are read."""

    def __init__(self, weight: Tensor) -> None:
        self.columns, self.first = weight.detach().t().contiguous(), torch.zeros(1, dtype=torch.int64)

    def add(self, base: Tensor, x: Tensor, *, out: Tensor) -> None:
        chosen = x[0].nonzero()[:, 0]
        summed = F.embedding_bag(chosen, self.columns, self.first, mode="sum", per_sample_weights=x[0, chosen])
        torch.add(base, summed, out=out)


def int8_product(x: Tensor, x_scale: float, weight: Tensor, scale: Tensor, zeros: Tensor) -> Tensor:
    """x uint8 [n_rows, in] around INT8_ZERO, weight prepacked, scale and zeros of its rows -> float32 [n_rows, out]."""
    return torch.ops.onednn.qlinear_pointwise(
        x, x_scale, INT8_ZERO, weight, scale, zeros, None, 1.0, 0, torch.float32, "none", [], ""
    )


def in_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """weight [out, in] -> int8 [out, in] and a scale for each row, float32 [out]."""
    scale = weight.abs().amax(1).clamp(min=1e-30) / INT8_LARGEST
    return (weight / scale.unsqueeze(1)).round_().to(torch.int8), scale.float()


@cache
def why_unsupported(precision: InferencePrecision) -> str | None:
    """What is missing here to speak faster with that precision; None if nothing is.

    The operators are private, so they are tried once instead of trusted.
    """
    if precision == "fp32":
        return None
    if precision == "bf16":
        if not _has("_is_avx512_bf16_supported"):
            return "this processor has no bfloat16 instructions"
        return None
    if not _has("_is_vnni_supported"):
        return NO_VNNI
    return None if can_multiply_int8() else "this build of PyTorch has no int8 products"


def _has(question: str) -> bool:
    """What `torch.cpu` says of the processor; its questions are private too."""
    ask = getattr(torch.cpu, question, None)
    return ask is not None and bool(ask())


def can_multiply_int8() -> bool:
    try:
        weight = torch.full((32, 64), 2, dtype=torch.int8)
        packed = torch.ops.onednn.qlinear_prepack(weight, [1, 64])
        x = torch.full((1, 64), INT8_ZERO + 3, dtype=torch.uint8)
        product = int8_product(x, 0.5, packed, torch.ones(32), torch.zeros(32, dtype=torch.int32))
    except (AttributeError, RuntimeError, NotImplementedError):
        return False
    return bool((product == 64 * 2 * 3 * 0.5).all())
