"""Weights laid out for products with few rows at a time, of which reading the weights is nearly all the cost.

One step of full-size speech reads 60 MB of them and uses each number once, so half the bytes are nearly half the time.
"""

from functools import cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from kernels.products import PACKING_PAYS_FROM, can_pack

SpeakingPrecision = Literal["fp32", "bf16", "int8"]

INT8_LARGEST = 127


class Matrix:
    """`base + x @ weight.T` for one weight [out, in] and many x [n_rows, in].

    Reduced precision rounds weight, x and their product; the sum keeps the type of base. On one row the product of
    matrix and vector is used, which reads the weights in place: as they are, they are neither copied nor packed.
    """

    def __init__(self, weight: Tensor, *, n_rows: int, precision: SpeakingPrecision = "fp32") -> None:
        self.weight = weight.detach()
        self.scale: Tensor | None = None
        self.rounded_to = None if precision == "fp32" else torch.bfloat16
        on_cpu = weight.device.type == "cpu"
        self.is_vector, self.is_packed = n_rows == 1 and on_cpu, False
        if precision == "int8":
            self.weight, self.scale = in_int8(self.weight)
        elif precision == "bf16":
            self.weight = self.weight.to(torch.bfloat16, memory_format=torch.contiguous_format)
        if self.scale is None and on_cpu and not self.is_vector:
            self.is_packed = weight.numel() >= PACKING_PAYS_FROM and can_pack(self.weight.dtype)
        if self.is_packed:
            self.weight = torch.ops.mkldnn._reorder_linear_weight(self.weight.contiguous(), n_rows)

    def add(self, base: Tensor, x: Tensor, *, out: Tensor) -> None:
        """base, out [n_rows, out] (may be the same tensor), x [n_rows, in]."""
        if self.rounded_to is not None:
            torch.add(base, self._rounded(x.to(self.rounded_to)), out=out)
        elif self.is_vector:
            torch.addmv(base[0], self.weight, x[0], out=out[0])
        elif self.is_packed:
            torch.add(base, _packed_product(x, self.weight), out=out)
        else:
            torch.addmm(base, x, self.weight.t(), out=out)

    def _rounded(self, x: Tensor) -> Tensor:
        if self.scale is not None:
            return torch._weight_int8pack_mm(x, self.weight, self.scale)
        if self.is_vector:
            return torch.mv(self.weight, x[0])
        return _packed_product(x, self.weight) if self.is_packed else F.linear(x, self.weight)


def _packed_product(x: Tensor, weight: Tensor) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise.default(x, weight, None, "none", [], "")


def in_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """weight [out, in] -> int8 [out, in] and a scale for each row, bfloat16 [out]."""
    largest = weight.abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny * INT8_LARGEST)
    scale = (largest / INT8_LARGEST).to(torch.bfloat16)
    # divided by the scale as it is stored, so that its own rounding costs nothing
    whole = (weight / scale.to(weight.dtype).unsqueeze(1)).round_().clamp_(-INT8_LARGEST, INT8_LARGEST)
    return whole.to(torch.int8), scale


@cache
def lacks_for(precision: SpeakingPrecision) -> str | None:
    """What is missing here to speak faster with that precision; None if nothing is.

    The product with int8 weights is a private operator, so it is tried once instead of trusted.
    """
    if precision == "fp32":
        return None
    if not has_bfloat16():
        return "this processor has no bfloat16 instructions"
    if precision == "int8" and not has_int8_product():
        return "this build of PyTorch has no product with int8 weights"
    return None


def has_bfloat16() -> bool:
    try:
        return bool(torch.cpu._is_avx512_bf16_supported())
    except AttributeError:
        return False


def has_int8_product() -> bool:
    try:
        x, weight = torch.ones(1, 64, dtype=torch.bfloat16), torch.full((32, 64), 2, dtype=torch.int8)
        product = torch._weight_int8pack_mm(x, weight, torch.ones(32, dtype=torch.bfloat16))
    except (AttributeError, RuntimeError, NotImplementedError):
        return False
    return bool((product == 128.0).all())
