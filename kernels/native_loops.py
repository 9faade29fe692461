"""The loops of `kernels.decoder_autograd` as compiled functions, with the products of all steps around them.

In bf16 everything that is kept for the backward is bf16: half the memory, and products read it as it is.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from kernels.decoder_autograd import Grads
from kernels.matmul import add_transposed_product, chunks_from_the_end, column_sums, product, transposed_product
from kernels.native import PANEL, ROWS_READ_AT_ONCE, loaded, pack, run

ROWS_OF_A_CHUNK = 3200  # of gate gradients that are kept at a time
WINDOW = 32  # taps of a location kernel, filled up with zeros


def are_sizes_supported(*sizes: int, kernel_size: int, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether the compiled loops cover these widths, types and this machine."""
    fits = all(size % PANEL == 0 for size in sizes) and kernel_size < WINDOW
    return fits and dtype == torch.float32 and device.type == "cpu" and loaded() is not None


def rows(n: int, width: int, like: Tensor, dtype: torch.dtype) -> Tensor:
    """[n, width] uninitialised, and what products may read behind its end."""
    return like.new_empty(n + ROWS_READ_AT_ONCE * torch.get_num_threads(), width, dtype=dtype)


class NativeRecurrentLoop(torch.autograd.Function):
    """As `decoder_autograd.RecurrentLoop`, with the product of its input: x [T_dec, B, in], weight [4D, in], bias [4D];
    mask [T_dec, B, D] 0 or one other value. The last `carried` numbers of x are handed on beside the hidden state.
    ->  [T_dec, B, D + carried] of the type of x.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, recurrent: Tensor, mask: Tensor | None, carried: int = 0
    ) -> Tensor:
        (T, B, _), D, is_half = x.shape, recurrent.size(1), x.dtype == torch.bfloat16
        gates, K = product(x, weight.to(x.dtype)), D + carried
        states, cells = rows((T + 1) * B, K, gates, x.dtype), gates.new_empty(T + 1, B, D)
        states[:B], cells[0] = 0.0, 0.0
        out = states[B : (T + 1) * B].view(T, B, K)
        out[:, :, D:] = x[:, :, x.size(2) - carried :]
        keep, scale = as_bytes(mask)
        run("recurrent_forward", is_half=is_half, T=T, B=B, D=D, K=K, bias=bias, mask=keep, scale=scale, gates=gates,
            states=states, cells=cells, weight=pack(recurrent.t(), is_half=is_half, units=D))  # fmt: skip
        ctx.save_for_backward(x, weight, recurrent, gates, states, cells, keep)
        ctx.scale = scale
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Grads:
        x, weight, recurrent, gates, states, cells, keep = ctx.saved_tensors
        (T, B, K), D, is_half, grad = grad.shape, recurrent.size(1), gates.dtype == torch.bfloat16, grad.contiguous()
        weight_back, grad_cell = pack(recurrent, is_half=is_half), zeros(B, D)
        sums = GateGradients(x, weight, recurrent, states[:, :D], n_steps=T)
        for start, stop in sums.chunks():
            run("recurrent_backward", is_half=is_half, T=stop - start, B=B, D=D, K=K, mask=part(keep, start, stop),
                scale=ctx.scale, gates=gates[start:stop], cells=cells[start : stop + 1], grad_cell=grad_cell,
                grad_states=grad[start:stop], grad_gates=sums.grad_gates, weight_back=weight_back)  # fmt: skip
            sums.add(start, stop)
        sums.grad_x[:, :, x.size(2) - (K - D) :] += grad[:, :, D:]
        return sums.grad_x, sums.grad_weight, sums.grad_bias, sums.grad_recurrent, None, None


class NativeAttentionLoop(torch.autograd.Function):
    """As `decoder_autograd.AttentionLoop`, with the product of its input: x [T_dec, B, in], weight [4D, in + E] of x
    and the context, bias [4D], recurrent [4D, D]; lengths [B] of the texts.
    ->  states [T_dec, B, D + E] of the type of x, alignments [T_dec, B, T_text].
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, recurrent: Tensor, query_weight: Tensor, kernel: Tensor,
        v: Tensor, keys: Tensor, values: Tensor, lengths: Tensor, mask: Tensor | None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        (T, B, _), dtype, is_half = x.shape, x.dtype, x.dtype == torch.bfloat16
        D, E, N, A = query_weight.size(1), values.size(2), values.size(1), keys.size(2)
        gates, reads_state = product(x, weight[:, :-E].to(dtype)), torch.cat((recurrent, weight[:, -E:]), 1)
        sizes = {"B": B, "D": D, "E": E, "K": D + E, "A": A, "N": N, "L": up_to_32(N) + 64, "pad": kernel.size(2) // 2}
        keep, scale = as_bytes(mask)
        states, cells = rows((T + 1) * B, D + E, gates, dtype), gates.new_empty(T + 1, B, D)
        states[:B], cells[0] = 0.0, 0.0
        alignments, queries = keys.new_empty(T, B, N), keys.new_empty(T, B, A)
        padded = gates.new_zeros(T, B, 2, sizes["L"])
        read = {"v": v.contiguous(), "keys": keys.contiguous(), "lengths": lengths,
                "values": pairs_of(values, dtype), **folded(kernel, is_half=is_half)}  # fmt: skip
        run("attention_forward", is_half=is_half, T=T, **sizes, **read, mask=keep, scale=scale, bias=bias, gates=gates,
            states=states, cells=cells, alignments=alignments, queries=queries, padded=padded,
            weight=pack(reads_state.t(), is_half=is_half, units=D),
            query=pack(query_weight.t(), is_half=is_half))  # fmt: skip
        ctx.save_for_backward(x, weight, recurrent, query_weight, gates, states, cells, alignments, queries, padded,
                              keep, *(read[name] for name in READ))  # fmt: skip
        ctx.sizes, ctx.scale, ctx.kernel_size = sizes, scale, kernel.size(2)
        return states[B : (T + 1) * B].view(T, B, D + E), alignments

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_states: Tensor, grad_alignments: Tensor) -> Grads:
        x, weight, recurrent, query_weight, gates, states, cells, alignments, queries, padded, keep, *read = (
            ctx.saved_tensors
        )
        T, (B, D, E, A, N) = len(x), (ctx.sizes[name] for name in ("B", "D", "E", "A", "N"))
        is_half, dtype = gates.dtype == torch.bfloat16, recurrent.dtype
        grad_states, grad_alignments = grad_states.contiguous(), grad_alignments.contiguous()
        reads_state = torch.cat((recurrent, weight[:, -E:]), 1)
        grad_queries, grad_contexts = rows(T * B, A, gates, gates.dtype), gates.new_empty(T, B, E)
        grad_keys, grad_kernel, grad_v = zeros(B, N, A), zeros(B, 2, WINDOW, A), zeros(B, A)
        same = {**ctx.sizes, **dict(zip(READ, read, strict=True)), "scale": ctx.scale, "grad_keys": grad_keys,
                "grad_kernel": grad_kernel, "grad_v": grad_v, "grad_cell": zeros(B, D), "to_last": zeros(B, N),
                "to_summed": zeros(B, N), "weight_back": pack(reads_state, is_half=is_half),
                "query_back": pack(query_weight, is_half=is_half)}  # fmt: skip
        sums = GateGradients(x, weight[:, :-E], reads_state, states, n_steps=T)
        for start, stop in sums.chunks():
            run("attention_backward", is_half=is_half, **same, T=stop - start, start=start,
                mask=part(keep, start, stop), gates=gates[start:stop], cells=cells[start : stop + 1],
                alignments=alignments[start:stop], queries=queries[start:stop], padded=padded[start:stop],
                grad_states=grad_states[start:stop], grad_alignments=grad_alignments[start:stop],
                grad_gates=sums.grad_gates, grad_queries=grad_queries[start * B :],
                grad_contexts=grad_contexts[start:stop])  # fmt: skip
            sums.add(start, stop)
        grad_query = transposed_product(grad_queries[: T * B], states[B : (T + 1) * B, :D], dtype)
        grad_values = torch.bmm(alignments.permute(1, 2, 0).to(gates.dtype), grad_contexts.transpose(0, 1)).to(dtype)
        grad_kernel = grad_kernel.sum(0)[:, : ctx.kernel_size].permute(2, 0, 1)
        grad_recurrent, from_context = sums.grad_recurrent.split([D, E], 1)
        grad_weight = torch.cat((sums.grad_weight, from_context), 1)
        return (sums.grad_x, grad_weight, sums.grad_bias, grad_recurrent, grad_query, grad_kernel,
                grad_v.sum(0), grad_keys, grad_values, None, None)  # fmt: skip


class GateGradients:
    """What the gradients of an LSTM's gates lead to, chunk by chunk from the last one.

    They are as large as the gates that the forward pass has kept, and nobody needs them once these sums are made.
    """

    def __init__(self, x: Tensor, weight: Tensor, recurrent: Tensor, states: Tensor, *, n_steps: int) -> None:
        """x [T_dec, B, in], weight [4D, in], recurrent [4D, K] and what it reads: states, rows of K from step -1 on."""
        self.x, self.states, self.dtype, self.n_steps = x, states, weight.dtype, n_steps
        self.B, D4 = x.size(1), weight.size(0)
        self.chunk = min(n_steps, max(1, ROWS_OF_A_CHUNK // self.B))
        # of one chunk, and behind its last step that of the step after it
        self.grad_gates = rows((self.chunk + 1) * self.B, D4, x, x.dtype)
        self.grad_gates[: self.B] = 0.0
        self.into_x, self.grad_x = weight.to(x.dtype).t(), torch.empty_like(x)
        self.grad_weight, self.grad_recurrent = torch.zeros_like(weight), torch.zeros_like(recurrent)
        self.grad_bias = weight.new_zeros(D4)

    def chunks(self) -> Iterator[tuple[int, int]]:
        for start, stop in chunks_from_the_end(self.n_steps, self.chunk):
            behind = (stop - start) * self.B
            self.grad_gates[behind : behind + self.B] = self.grad_gates[: self.B]
            yield start, stop

    def add(self, start: int, stop: int) -> None:
        """The gradients of the steps start..stop-1 are in `grad_gates`."""
        flat, x = self.grad_gates[: (stop - start) * self.B], self.x[start:stop].flatten(0, 1)
        self.grad_x[start:stop] = product(flat, self.into_x).view(stop - start, self.B, -1)
        add_transposed_product(self.grad_weight, flat, x)
        add_transposed_product(self.grad_recurrent, flat, self.states[start * self.B : stop * self.B])
        self.grad_bias += column_sums(flat, self.dtype)


def part(mask: Tensor | None, start: int, stop: int) -> Tensor | None:
    """Steps start..stop-1 of a mask [T_dec, B, D], if there is one."""
    return None if mask is None else mask[start:stop]


READ = ("kernel", "kernel_back", "values", "v", "keys", "lengths")  # by both directions


def as_bytes(mask: Tensor | None) -> tuple[Tensor | None, float]:
    """A dropout mask [T_dec, B, D] of 0 and one other value -> bool [T_dec, B, D] where it is not 0, and that value."""
    return (None, 1.0) if mask is None else (mask.ne(0).contiguous(), mask.max().item())


def up_to_32(n: int) -> int:
    return -(-n // 32) * 32


def zeros(*shape: int) -> Tensor:
    """float32 [*shape]."""
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
