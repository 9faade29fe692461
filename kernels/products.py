"""Products of many small batches with one recurrent weight, packed once where the CPU library can."""

from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

PACKING_PAYS_FROM = 1 << 17  # weight elements; below it a packed call costs more than it saves


@cache
def can_pack(dtype: torch.dtype) -> bool:
    """Whether this build of PyTorch multiplies with packed weights of that type.

    The two operators are private, so they are tried once instead of trusted.
    """
    if dtype not in (torch.float32, torch.bfloat16):
        return False
    try:
        x, weight = torch.ones(2, 16, dtype=dtype), torch.ones(8, 16, dtype=dtype)
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, 2)
        product = torch.ops.mkldnn._linear_pointwise.default(x, packed, None, "none", [], "")
    except (AttributeError, RuntimeError, NotImplementedError):
        return False
    return bool((product == 16.0).all())


class RecurrentProduct:
    """`base + x @ weight.T` for one weight [out, in] and many x, which are rounded to the weight's type."""

    def __init__(self, weight: Tensor, *, n_rows: int) -> None:
        self.weight, self.dtype = weight, weight.dtype
        on_cpu = weight.device.type == "cpu"
        self.is_packed = on_cpu and weight.numel() >= PACKING_PAYS_FROM and can_pack(weight.dtype)
        if self.is_packed:
            self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), n_rows)

    def add(self, base: Tensor, x: Tensor, *, out: Tensor) -> None:
        """base, out [n_rows, out] (may be the same tensor) of any type, x [n_rows, in]."""
        if self.is_packed:
            rounded = x.to(self.dtype)
            product = torch.ops.mkldnn._linear_pointwise.default(rounded, self.weight, None, "none", [], "")
            torch.add(base, product, out=out)
        elif x.dtype != self.dtype:
            torch.add(base, F.linear(x.to(self.dtype), self.weight), out=out)
        else:
            torch.addmm(base, x, self.weight.t(), out=out)


def rounded(weight: Tensor, compute_dtype: torch.dtype | None) -> Tensor:
    return weight if compute_dtype is None else weight.to(compute_dtype)


def matmul_in(left: Tensor, right: Tensor, compute_dtype: torch.dtype | None) -> Tensor:
    """left @ right with both rounded to `compute_dtype`; the result has the type of left."""
    if compute_dtype is None:
        return left @ right
    return (left.to(compute_dtype) @ right.to(compute_dtype)).to(left.dtype)


def linear_in(x: Tensor, weight: Tensor, bias: Tensor, compute_dtype: torch.dtype | None) -> Tensor:
    """`F.linear` with x and weight rounded to `compute_dtype`; differentiable."""
    if compute_dtype is None:
        return F.linear(x, weight, bias)
    return F.linear(x.to(compute_dtype), weight.to(compute_dtype)).to(x.dtype) + bias


def chunks_from_the_end(n_steps: int, size: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of runs of at most `size` steps, the last run first."""
    for stop in range(n_steps, 0, -size):
        yield max(0, stop - size), stop
