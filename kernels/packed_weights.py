"""Weights laid out for products with few rows at a time, of which reading the weights is nearly all the cost.

One step of full-size speech reads 60 MB of them and uses each number once, so half the bytes are nearly half the time.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from kernels.matmul import PACKING_PAYS_FROM, can_pack, packed_product

InferencePrecision = Literal["fp32", "bf16", "int8"]  # of the LSTM weights in the compiled loop; PyTorch's has fp32
PrecisionChoice = Literal["fp32", "bf16", "int8", "auto"]  # auto: the fastest that there is

INT8_LARGEST = 127


class Matrix:
    """`base + x @ weight.T` for one weight [out, in] and many x [n_rows, in].

    On one row the weight is read where it is, neither copied nor packed.
    """

    def __init__(self, weight: Tensor, *, n_rows: int) -> None:
        """weight [out, in], n_rows that every x has."""
        self.weight = weight.detach()
        on_cpu = weight.device.type == "cpu"
        self.is_vector = n_rows == 1 and on_cpu
        packs = on_cpu and not self.is_vector and weight.numel() >= PACKING_PAYS_FROM
        self.is_packed = packs and can_pack(weight.dtype)
        if self.is_packed:
            self.weight = torch.ops.mkldnn._reorder_linear_weight(self.weight.contiguous(), n_rows)

    def add(self, base: Tensor, x: Tensor, *, out: Tensor) -> None:
        """base, out [n_rows, out] (may be the same tensor), x [n_rows, in]."""
        if self.is_packed:
            torch.add(base, packed_product(x, self.weight), out=out)
        elif self.is_vector:
            torch.addmv(base[0], self.weight, x[0], out=out[0])
        else:
            torch.addmm(base, x, self.weight.t(), out=out)

    def of_rows(self, x: Tensor) -> Tensor:
        """x [..., in] -> [..., out], any number of rows; not for speed."""
        return packed_product(x, self.weight) if self.is_packed else F.linear(x, self.weight)


class SparseColumns:
    """As `Matrix`, for one x on a CPU of which most is zero: only the columns that count are read."""

    def __init__(self, weight: Tensor) -> None:
        """weight [out, in]."""
        self.columns, self.first = weight.detach().t().contiguous(), torch.zeros(1, dtype=torch.int64)

    def add(self, base: Tensor, x: Tensor, *, out: Tensor) -> None:
        """base, out [1, out] (may be the same tensor), x [1, in]."""
        chosen = x[0].nonzero()[:, 0]
        summed = F.embedding_bag(chosen, self.columns, self.first, mode="sum", per_sample_weights=x[0, chosen])
        torch.add(base, summed, out=out)


def in_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """weight [out, in] -> int8 [out, in] and a scale for each row, float32 [out]."""
    scale = weight.abs().amax(1).clamp(min=1e-30) / INT8_LARGEST
    return (weight / scale.unsqueeze(1)).round_().to(torch.int8), scale.float()
