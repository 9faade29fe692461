"""Matrix products: of many small batches with one weight that is packed once, and of all steps at a time."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

PACKING_PAYS_FROM = 1 << 17  # weight elements; below it a packed call costs more than it saves
MULTIPLIED_AT_ONCE = 2048  # rows: so many that their product takes longer than adding it to the others
SUMMED_AT_ONCE = 256  # rows: so few that their copy stays in the cache


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
            torch.add(base, packed_product(x.to(self.dtype), self.weight), out=out)
        elif x.dtype != self.dtype:
            torch.add(base, F.linear(x.to(self.dtype), self.weight), out=out)
        else:
            torch.addmm(base, x, self.weight.t(), out=out)


def cast(factor: Tensor, compute_dtype: torch.dtype | None) -> Tensor:
    """factor [...] in the type that products are computed in; as it is for None."""
    return factor if compute_dtype is None else factor.to(compute_dtype)


@cache
def prefers_packed_fp32() -> bool:
    """Whether packing pays in fp32 products of all steps too.

    PyTorch multiplies fp32 by MKL, which takes AVX-512 on Intel's processors only; elsewhere oneDNN is twice as fast,
    and packing takes a hundredth of the product. Asked of the processor, not timed: bits must not depend on load.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    vendor = next((line for line in lines if line.startswith("vendor_id")), "")
    return vendor != "" and "GenuineIntel" not in vendor and can_pack(torch.float32)


@cache
def has_bf16_products() -> bool:
    """Whether oneDNN multiplies bf16 on this processor; else PyTorch does it alone, at a tenth of the rate of fp32."""
    try:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported() is True
    except (AttributeError, RuntimeError):
        return True


def is_better_widened(x: Tensor) -> bool:
    """Whether x [...] is bf16 that this processor multiplies faster as fp32, which contains it."""
    return x.dtype == torch.bfloat16 and x.device.type == "cpu" and not has_bf16_products()


def product(x: Tensor, weight: Tensor) -> Tensor:
    """x [..., in] times weight [out, in], both of any strides -> [..., out]; not differentiable."""
    if is_better_widened(x):
        return product(x.float(), weight.float()).to(x.dtype)
    is_single = x.dtype == torch.float32 and x.device.type == "cpu"
    if is_single and weight.numel() >= PACKING_PAYS_FROM and prefers_packed_fp32():
        n_rows = x.numel() // x.size(-1)
        return packed_product(x, torch.ops.mkldnn._reorder_linear_weight(weight, n_rows))
    return F.linear(x, weight)


def packed_product(x: Tensor, weight: Tensor) -> Tensor:
    """x [..., in] times a packed weight."""
    return torch.ops.mkldnn._linear_pointwise.default(x, weight, None, "none", [], "")


def transposed_product(left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
    """left [n, a], right [n, b] -> left^T right [a, b] in `dtype`."""
    total = left.new_zeros(left.size(1), right.size(1), dtype=dtype)
    add_transposed_product(total, left, right)
    return total


def add_transposed_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total [a, b] += left^T right, for left [n, a] and right [n, b].

    In half types the narrower factor is turned over first: a product of a transposed matrix takes almost twice as long.
    """
    if is_better_widened(left):
        left, right = left.float(), right.float()
    if left.dtype == torch.float32 and left.device.type == "cpu" and prefers_packed_fp32():
        for rows in zip(left.split(MULTIPLIED_AT_ONCE), right.split(MULTIPLIED_AT_ONCE), strict=True):
            total += product(rows[0].t(), rows[1].t())  # in blocks, as packing copies both factors
    elif left.dtype == total.dtype:
        total.addmm_(left.t(), right)
    elif left.size(1) < right.size(1):
        total += left.t().contiguous() @ right
    else:
        total += (right.t().contiguous() @ left).t().contiguous()  # adding across the rows takes six times as long


def column_sums(rows: Tensor, dtype: torch.dtype) -> Tensor:
    """rows [n, width] -> [width], summed in `dtype`; in blocks, as a sum in another type copies its terms first."""
    return torch.stack([block.sum(0, dtype=dtype) for block in rows.split(SUMMED_AT_ONCE)]).sum(0)


class DeferredLinear(torch.autograd.Function):
    """x [..., in] times weight [out, in] -> [..., out], all of the type of x; the weight's gradient in its own type."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return product(x, weight.to(x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = product(grad, weight.to(grad.dtype).t())
        if ctx.needs_input_grad[1]:
            grad_weight = transposed_product(grad.flatten(0, -2), x.flatten(0, -2), weight.dtype)
        return grad_x, grad_weight


def linear_in(x: Tensor, weight: Tensor, bias: Tensor, compute_dtype: torch.dtype | None) -> Tensor:
    """x [..., in] times weight [out, in], both cast to `compute_dtype`, plus bias [out] in the type of x -> [..., out];
    differentiable once.
    """
    return DeferredLinear.apply(cast(x, compute_dtype), weight).to(x.dtype) + bias


def chunks_from_the_end(n_steps: int, size: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of runs of at most `size` steps, the last run first."""
    for stop in range(n_steps, 0, -size):
        yield max(0, stop - size), stop
