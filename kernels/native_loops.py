"""The loops of `kernels.loops` as compiled functions, with the deferred products around them.

In bf16 everything that is kept for the backward is bf16: half the memory, and products read it as it is.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from kernels.loops import Grads
from kernels.native import PANEL, ROWS_READ_AT_ONCE, loaded, pack, run

WINDOW = 32  # taps of a location kernel, filled up with zeros


def can_run(*sizes: int, kernel_size: int, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether the compiled loops cover these widths, types and this machine."""
    fits = all(size % PANEL == 0 for size in sizes) and kernel_size < WINDOW
    return fits and dtype == torch.float32 and device.type == "cpu" and loaded() is not None


def rows(n: int, width: int, like: Tensor, dtype: torch.dtype) -> Tensor:
    """[n, width] uninitialised, and what products may read behind its end."""
    return like.new_empty(n + ROWS_READ_AT_ONCE * torch.get_num_threads(), width, dtype=dtype)


def transposed_product(left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
    """left [n, a], right [n, b] -> left^T right [a, b].

    In bf16 the narrower factor is turned over first: a product of a transposed bf16 matrix takes almost twice as long.
    """
    if left.dtype != torch.bfloat16:
        return left.t() @ right
    if left.size(1) < right.size(1):
        return (left.t().contiguous() @ right).to(dtype)
    return (right.t().contiguous() @ left).to(dtype).t().contiguous()


class DeferredLinear(torch.autograd.Function):
    """x [..., in] times weight [out, in] -> [..., out], all of the type of x; the weight's gradient in its own type."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.linear(x, weight.to(x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Grads:
        x, weight = ctx.saved_tensors
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = grad @ weight.to(grad.dtype)
        if ctx.needs_input_grad[1]:
            grad_weight = transposed_product(grad.flatten(0, -2), x.flatten(0, -2), weight.dtype)
        return grad_x, grad_weight


class NativeRecurrentLoop(torch.autograd.Function):
    """As `kernels.loops.RecurrentLoop`.

    gates_in [T_dec, B, 4D] without biases, used up; bias [4D]; mask [T_dec, B, D] 0 or one other value.
    """

    @staticmethod
    def forward(ctx: Any, gates_in: Tensor, bias: Tensor, recurrent: Tensor, mask: Tensor | None) -> Tensor:
        (T, B, _), D, dtype = gates_in.shape, recurrent.size(1), gates_in.dtype
        is_half = dtype == torch.bfloat16
        gates = gates_in.contiguous()
        states, cells = rows((T + 1) * B, D, gates, dtype), gates.new_empty(T + 1, B, D)
        states[:B], cells[0] = 0.0, 0.0
        keep, scale = as_bytes(mask)
        run("recurrent_forward", is_half=is_half, T=T, B=B, D=D, bias=bias, mask=keep, scale=scale, gates=gates,
            states=states, cells=cells, weight=pack(recurrent.t(), is_half=is_half, units=D))  # fmt: skip
        ctx.save_for_backward(recurrent, gates, states, cells, keep)
        ctx.scale = scale
        return states[B : (T + 1) * B].view(T, B, D)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_hidden: Tensor) -> Grads:
        recurrent, gates, states, cells, keep = ctx.saved_tensors
        (T, B, D4), D, is_half = gates.shape, recurrent.size(1), gates.dtype == torch.bfloat16
        grad_gates = rows(T * B, D4, gates, gates.dtype)
        run("recurrent_backward", is_half=is_half, T=T, B=B, D=D, mask=keep, scale=ctx.scale, gates=gates, cells=cells,
            grad_states=grad_hidden.contiguous(), grad_gates=grad_gates,
            weight_back=pack(recurrent, is_half=is_half))  # fmt: skip
        flat = grad_gates[: T * B]
        grad_recurrent = transposed_product(flat, states[: T * B], recurrent.dtype)
        return flat.view(T, B, D4), flat.sum(0, dtype=recurrent.dtype), grad_recurrent, None


class NativeAttentionLoop(torch.autograd.Function):
    """As `kernels.loops.AttentionLoop`; gates_in without biases, used up; bias [4D]; lengths [B] of the texts."""

    @staticmethod
    def forward(
        ctx: Any, gates_in: Tensor, bias: Tensor, recurrent: Tensor, query_weight: Tensor, kernel: Tensor, v: Tensor,
        keys: Tensor, values: Tensor, lengths: Tensor, mask: Tensor | None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        (T, B, _), dtype = gates_in.shape, gates_in.dtype
        D, E, N, A = query_weight.size(1), values.size(2), values.size(1), keys.size(2)
        is_half, gates = dtype == torch.bfloat16, gates_in.contiguous()
        sizes = {"T": T, "B": B, "D": D, "E": E, "A": A, "N": N, "L": -(-N // 32) * 32 + 64, "pad": kernel.size(2) // 2}
        keep, scale = as_bytes(mask)
        states, cells = rows((T + 1) * B, D + E, gates, dtype), gates.new_empty(T + 1, B, D)
        states[:B], cells[0] = 0.0, 0.0
        alignments, queries = keys.new_empty(T, B, N), keys.new_empty(T, B, A)
        padded = gates.new_zeros(T, B, 2, sizes["L"])
        read = {"v": v.contiguous(), "keys": keys.contiguous(), "lengths": lengths, "mask": keep,
                "values": pairs_of(values, dtype), **folded(kernel, is_half=is_half)}  # fmt: skip
        run("attention_forward", is_half=is_half, **sizes, **read, scale=scale, bias=bias, gates=gates,
            states=states, cells=cells, alignments=alignments, queries=queries, padded=padded,
            weight=pack(recurrent.t(), is_half=is_half, units=D),
            query=pack(query_weight.t(), is_half=is_half))  # fmt: skip
        ctx.save_for_backward(recurrent, query_weight, gates, states, cells, alignments, queries, padded,
                              *(read[name] for name in READ))  # fmt: skip
        ctx.sizes, ctx.scale, ctx.kernel_size = sizes, scale, kernel.size(2)
        return states[B : (T + 1) * B].view(T, B, D + E), alignments

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_states: Tensor, grad_alignments: Tensor) -> Grads:
        recurrent, query_weight, gates, states, cells, alignments, queries, padded, *read = ctx.saved_tensors
        T, B, D, E, A, N = (ctx.sizes[name] for name in ("T", "B", "D", "E", "A", "N"))
        is_half, dtype = gates.dtype == torch.bfloat16, recurrent.dtype
        grad_gates, grad_queries = rows(T * B, 4 * D, gates, gates.dtype), rows(T * B, A, gates, gates.dtype)
        grad_contexts = gates.new_empty(T, B, E)
        grad_keys, grad_kernel, grad_v = zeros(B, N, A), zeros(B, 2, WINDOW, A), zeros(B, A)
        run("attention_backward", is_half=is_half, **ctx.sizes, **dict(zip(READ, read, strict=True)), scale=ctx.scale,
            gates=gates, cells=cells, alignments=alignments, queries=queries, padded=padded,
            grad_states=grad_states.contiguous(), grad_alignments=grad_alignments.contiguous(), grad_gates=grad_gates,
            grad_queries=grad_queries, grad_contexts=grad_contexts,
            grad_keys=grad_keys, grad_kernel=grad_kernel, grad_v=grad_v,
            weight_back=pack(recurrent, is_half=is_half), query_back=pack(query_weight, is_half=is_half))  # fmt: skip
        flat = grad_gates[: T * B]
        grad_recurrent = transposed_product(flat, states[: T * B], dtype)
        grad_query = transposed_product(grad_queries[: T * B], states[B : (T + 1) * B, :D], dtype)
        grad_values = torch.bmm(alignments.permute(1, 2, 0).to(gates.dtype), grad_contexts.transpose(0, 1)).to(dtype)
        grad_kernel = grad_kernel.sum(0)[:, : ctx.kernel_size].permute(2, 0, 1)
        return (flat.view(T, B, 4 * D), flat.sum(0, dtype=dtype), grad_recurrent, grad_query, grad_kernel,
                grad_v.sum(0), grad_keys, grad_values, None, None)  # fmt: skip


READ = ("kernel", "kernel_back", "values", "v", "keys", "lengths", "mask")  # by both directions


def as_bytes(mask: Tensor | None) -> tuple[Tensor | None, float]:
    """A dropout mask of 0 and one other value -> where it is not 0, and that value."""
    return (None, 1.0) if mask is None else (mask.ne(0).contiguous(), mask.max().item())


def zeros(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.float32)


def pairs_of(values: Tensor, dtype: torch.dtype) -> Tensor:
    """values [B, N, E] -> N filled up to even; in bf16 two positions interleaved, [B, N / 2, E, 2]."""
    B, N, E = values.shape
    even = F.pad(values, (0, 0, 0, N % 2)).to(dtype)
    return even.view(B, -1, 2, E).transpose(2, 3).contiguous() if dtype == torch.bfloat16 else even.contiguous()


def folded(kernel: Tensor, *, is_half: bool) -> dict[str, Tensor]:
    """kernel [A, 2, kernel_size] -> packed for windows (each channel [32, A]) and for the way back ([A, 64])."""
    filled = F.pad(kernel, (0, WINDOW - kernel.size(2))).contiguous()  # [A, 2, 32]
    by_channel = [pack(filled[:, channel].t(), is_half=is_half) for channel in (0, 1)]
    return {"kernel": torch.cat(by_channel), "kernel_back": pack(filled.flatten(1), is_half=is_half)}
