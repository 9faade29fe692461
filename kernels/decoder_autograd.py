"""The decoder's two step loops as autograd functions with backward passes written by hand.

What a step does stands in `kernels.decoder_steps`; here is what surrounds the steps: buffers, and products over all of
them. Nothing saved for backward is written to, so a graph may be walked twice. `chunk` is that of
`kernels.chunked_steps.run_steps`.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels.chunked_steps import run_steps
from kernels.decoder_steps import AttentionBackward, AttentionForward, RecurrentBackward, RecurrentForward
from kernels.matmul import cast, transposed_product

Grads = tuple[Tensor | None, ...]


class RecurrentLoop(torch.autograd.Function):
    """An LSTM whose dropped-out hidden state is fed back.

    gates_in [T_dec, B, 4D] input products with biases, used up; recurrent [4D, D], mask [T_dec, B, D] or None
    ->  hidden [T_dec, B, D].
    """

    @staticmethod
    def forward(
        ctx: Any, gates_in: Tensor, recurrent: Tensor, mask: Tensor | None, compute_dtype: torch.dtype | None,
        chunk: int | None,
    ) -> Tensor:  # fmt: skip
        (T_dec, B, _), D = gates_in.shape, recurrent.size(1)
        gates = gates_in.contiguous()
        states, cells = gates.new_empty(T_dec + 1, B, D), gates.new_empty(T_dec + 1, B, D)
        states[0].zero_()
        cells[0].zero_()
        weight = cast(recurrent, compute_dtype)
        steps = RecurrentForward(weight=weight, mask=mask, gates=gates, states=states, cells=cells)
        run_steps(steps, chunk=chunk)
        ctx.save_for_backward(recurrent, gates, states, cells, mask)
        ctx.compute_dtype, ctx.chunk = compute_dtype, chunk
        return states[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_hidden: Tensor) -> Grads:
        recurrent, gates, states, cells, mask = ctx.saved_tensors
        with torch.autocast(gates.device.type, enabled=False):
            steps = RecurrentBackward(
                weight=cast(recurrent.t(), ctx.compute_dtype), mask=mask, gates=gates, cells=cells,
                grad_states=prepend_zero_row(grad_hidden), grad_cell=torch.zeros_like(cells[0]),
                grad_gates=torch.empty_like(gates),
            )  # fmt: skip
            run_steps(steps, chunk=ctx.chunk)
            grad_recurrent = None
            if ctx.needs_input_grad[1]:
                flat = steps.grad_gates.flatten(0, 1)
                before = states[:-1].flatten(0, 1)
                factors = cast(flat, ctx.compute_dtype), cast(before, ctx.compute_dtype)
                grad_recurrent = transposed_product(*factors, flat.dtype)
        return steps.grad_gates, grad_recurrent, None, None, None


class AttentionLoop(torch.autograd.Function):
    """Attention LSTM and location-sensitive attention over all steps.

    gates_in [T_dec, B, 4D] input products with biases, used up; recurrent [4D, D + E] reads [hidden, context];
    query_weight [A, D]; kernel [A, 2, kernel_size]; v [A]; keys [B, T_text, A]; values [B, T_text, E];
    padding_bias [B, T_text] 0 or -inf; mask [T_dec, B, D] or None
    ->  states [T_dec, B, D + E], alignments [T_dec, B, T_text].
    """

    @staticmethod
    def forward(
        ctx: Any, gates_in: Tensor, recurrent: Tensor, query_weight: Tensor, kernel: Tensor, v: Tensor,
        keys: Tensor, values: Tensor, padding_bias: Tensor, mask: Tensor | None, compute_dtype: torch.dtype | None,
        chunk: int | None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        (T_dec, B, _), D, E = gates_in.shape, query_weight.size(1), values.size(2)
        T_text, A, kernel_size = keys.size(1), keys.size(2), kernel.size(2)
        new = gates_in.new_empty
        states, cells = new(T_dec + 1, B, D + E), new(T_dec + 1, B, D)
        states[0].zero_()
        cells[0].zero_()
        steps = AttentionForward(
            weight=cast(recurrent, compute_dtype), query2=2 * query_weight.t(), kernel2=2 * kernel.flatten(1).t(),
            v2=2 * v, keys2=2 * keys, values=values.contiguous(), padding_bias=padding_bias, mask=mask,
            gates=gates_in.contiguous(), states=states, cells=cells, queries=new(T_dec, B, A),
            alignments=new(T_dec, B, T_text),
            padded=gates_in.new_zeros(T_dec + 1, B, 2, T_text + kernel_size - 1),
        )  # fmt: skip
        run_steps(steps, chunk=chunk)
        ctx.save_for_backward(recurrent, query_weight, kernel, v, keys, steps.values, mask,
                              steps.gates, steps.queries, steps.alignments, states, cells, steps.padded)  # fmt: skip
        ctx.compute_dtype, ctx.chunk = compute_dtype, chunk
        return states[1:], steps.alignments

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_states: Tensor, grad_alignments: Tensor) -> Grads:
        recurrent, query_weight, kernel, v, keys, values, mask = ctx.saved_tensors[:7]
        gates, queries, alignments, states, cells, padded = ctx.saved_tensors[7:]
        (_, B, T_text), kernel_size, D = alignments.shape, kernel.size(2), cells.size(2)
        with torch.autocast(grad_states.device.type, enabled=False):
            steps = AttentionBackward(
                weight=cast(recurrent.t(), ctx.compute_dtype), query_weight=query_weight,
                kernel2=2 * kernel.flatten(1).t(), flipped=kernel.flip(2).flatten(1).t().contiguous(), v=v,
                keys2=2 * keys, values=values, mask=mask, gates=gates, cells=cells, padded=padded[:-1],
                queries=queries, alignments=alignments,
                grad_weights=grad_alignments.clone(memory_format=torch.contiguous_format),
                grad_states=prepend_zero_row(grad_states), grad_gates=torch.empty_like(gates),
                grad_queries=torch.empty_like(queries), grad_cell=torch.zeros_like(cells[0]),
                grad_flow=torch.zeros_like(alignments[0]), grad_keys=torch.zeros_like(keys), grad_v=torch.zeros_like(v),
                grad_kernel=kernel.new_zeros(2 * kernel_size, v.numel()),
                sent_back=keys.new_zeros(2 * kernel_size, B, T_text + 3 * kernel_size - 2),
            )  # fmt: skip
            run_steps(steps, chunk=ctx.chunk)
            grad_recurrent = grad_query = grad_values = None
            if ctx.needs_input_grad[1]:
                flat = steps.grad_gates.flatten(0, 1)
                before = states[:-1].flatten(0, 1)
                factors = cast(flat, ctx.compute_dtype), cast(before, ctx.compute_dtype)
                grad_recurrent = transposed_product(*factors, flat.dtype)
            if ctx.needs_input_grad[2]:
                grad_query = steps.grad_queries.flatten(0, 1).t() @ states[1:, :, :D].flatten(0, 1)
            if ctx.needs_input_grad[6]:
                grad_contexts = steps.grad_states[1:, :, D:].transpose(0, 1)  # [B, T_dec, E]
                grad_values = torch.bmm(alignments.permute(1, 2, 0), grad_contexts)
        grad_kernel = steps.grad_kernel.t().reshape(-1, 2, kernel_size)
        return (steps.grad_gates, grad_recurrent, grad_query, grad_kernel, steps.grad_v, steps.grad_keys, grad_values,
                None, None, None, None)  # fmt: skip


def prepend_zero_row(grads: Tensor) -> Tensor:
    """A copy [n + 1, ...] of what is sent to the states after each step, with zeros for the state before the first."""
    return torch.cat((torch.zeros_like(grads[:1]), grads))
