"""The decoder's two step loops as autograd functions with backward passes written by hand.

Formulas stand in `kernels.teacher_forced`. Nothing saved for backward is written to, so a graph may be walked twice.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernels.cell import CellBackward, advance, cell_steps
from kernels.products import RecurrentProduct, chunks_from_the_end, transposed_product

CHUNK_ELEMENTS = 1 << 18  # of the largest buffer the backward computes ahead: a megabyte of fp32 stays in the cache

Grads = tuple[Tensor | None, ...]


def chunk_steps(elements_per_step: int) -> int:
    """How many steps the backward prepares at once: many where steps are small and calls dear."""
    return max(1, CHUNK_ELEMENTS // elements_per_step)


class RecurrentLoop(torch.autograd.Function):
    """An LSTM whose dropped-out hidden state is fed back.

    gates_in [T_dec, B, 4D] input products with biases, recurrent [4D, D], mask [T_dec, B, D] or None
    ->  hidden [T_dec, B, D].
    """

    @staticmethod
    def forward(
        ctx: Any, gates_in: Tensor, recurrent: Tensor, mask: Tensor | None, compute_dtype: torch.dtype | None
    ) -> Tensor:
        T_dec, B, _ = gates_in.shape
        D = recurrent.size(1)
        gates = torch.empty_like(gates_in, memory_format=torch.contiguous_format)
        states, cells = gates.new_empty(T_dec + 1, B, D), gates.new_empty(T_dec + 1, B, D)
        states[0], cells[0] = 0.0, 0.0
        scratch = gates.new_empty(B, D)
        product = RecurrentProduct(recurrent, n_rows=B, compute_dtype=compute_dtype)
        steps = cell_steps(gates, cells, states[1:], mask)
        for base, state, step in zip(gates_in.unbind(0), states[:-1].unbind(0), steps, strict=True):
            product.add(base, state, out=step.gates)
            advance(step, scratch)
        ctx.save_for_backward(recurrent, gates, states, cells, mask)
        ctx.compute_dtype = compute_dtype
        return states[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_hidden: Tensor) -> Grads:
        recurrent, gates, states, cells, mask = ctx.saved_tensors
        T_dec, B, D4 = gates.shape
        with torch.autocast(gates.device.type, enabled=False):
            cell = CellBackward(gates, cells, mask)
            product = RecurrentProduct(recurrent.t(), n_rows=B, compute_dtype=ctx.compute_dtype)
            grads = grad_hidden.clone(memory_format=torch.contiguous_format).unbind(0)
            for start, stop in chunks_from_the_end(T_dec, chunk_steps(B * D4)):
                cell.prepare(start, stop)
                for t in range(stop - 1, start - 1, -1):
                    grad_gates = cell.step(t, grads[t])
                    if t > 0:
                        product.add(grads[t - 1], grad_gates, out=grads[t - 1])
            flat = cell.grad_gates.view(T_dec * B, D4)
            grad_recurrent = None
            if ctx.needs_input_grad[1]:
                rounded = ctx.compute_dtype or flat.dtype
                before = states[:-1].flatten(0, 1).to(rounded)
                grad_recurrent = transposed_product(flat.to(rounded), before, flat.dtype)
        return cell.grad_gates, grad_recurrent, None, None


class WeightHistory:
    """Last and summed attention weights before every step, zero-padded, and the windows of them the kernel sees."""

    def __init__(self, padded: Tensor, *, kernel_size: int) -> None:
        """padded [T_dec, B, 2, T_text + kernel_size - 1], contiguous."""
        T_dec, B, _, L = padded.shape
        T_text, pad = L - kernel_size + 1, kernel_size // 2
        inner = padded[..., pad : pad + T_text]
        self.last, self.summed = inner[:, :, 0].unbind(0), inner[:, :, 1].unbind(0)  # [B, T_text] a step
        # Window sample j of position n is padded[n + j]; n runs innermost so that copies are long runs.
        size, strides = (2, kernel_size, T_dec, B, T_text), (L, 1, 2 * B * L, 2 * L, 1)
        self.windows = padded.as_strided(size, strides, padded.storage_offset())

    def rows(self, start: int, stop: int) -> Tensor:
        """-> [2 * kernel_size, (stop - start) * B * T_text], a copy."""
        return self.windows[:, :, start:stop].reshape(2 * self.windows.size(1), -1)


class AttentionLoop(torch.autograd.Function):
    """Attention LSTM and location-sensitive attention over all steps.

    gates_in [T_dec, B, 4D] input products with biases; recurrent [4D, D + E] reads [hidden, context];
    query_weight [A, D]; kernel [A, 2, kernel_size]; v [A]; keys [B, T_text, A]; values [B, T_text, E];
    padding_bias [B, T_text] 0 or -inf; mask [T_dec, B, D] or None
    ->  states [T_dec, B, D + E], alignments [T_dec, B, T_text].
    """

    @staticmethod
    def forward(
        ctx: Any, gates_in: Tensor, recurrent: Tensor, query_weight: Tensor, kernel: Tensor, v: Tensor,
        keys: Tensor, values: Tensor, padding_bias: Tensor, mask: Tensor | None, compute_dtype: torch.dtype | None,
    ) -> tuple[Tensor, Tensor]:
        (T_dec, B, _), D, E = gates_in.shape, query_weight.size(1), values.size(2)
        T_text, A, kernel_size = keys.size(1), keys.size(2), kernel.size(2)
        new = gates_in.new_empty
        gates, queries, alignments = new(T_dec, B, 4 * D), new(T_dec, B, A), new(T_dec, B, T_text)
        states, cells = new(T_dec + 1, B, D + E), new(T_dec + 1, B, D)
        states[0], cells[0] = 0.0, 0.0
        padded = gates_in.new_zeros(T_dec, B, 2, T_text + kernel_size - 1)
        history = WeightHistory(padded, kernel_size=kernel_size)
        product = RecurrentProduct(recurrent, n_rows=B, compute_dtype=compute_dtype)
        # s = sigmoid(2z) stands for tanh(z) = 2s - 1; softmax does not see the constant this leaves in the energies.
        keys2, query2, kernel2, v2 = 2 * keys, 2 * query_weight.t(), 2 * kernel.flatten(1).t(), 2 * v
        scratch, energies, context = new(B, D), new(B, T_text), new(B, 1, E)
        seen, features = new(2, kernel_size, B, T_text), new(B, T_text, A)
        seen_rows, feature_rows = seen.view(2 * kernel_size, -1).t(), features.view(-1, A)
        bias, energy_row, values = padding_bias.flatten(), energies.view(-1), values.contiguous()
        steps = cell_steps(gates, cells, states[1:, :, :D], mask)
        bases, inputs = gates_in.unbind(0), states[:-1].unbind(0)
        contexts, windows = states[1:, :, D:].unbind(0), history.windows.unbind(2)
        per_step = zip(queries.unbind(0), queries.unsqueeze(2).unbind(0), alignments.unbind(0),
                       alignments.unsqueeze(2).unbind(0), strict=True)
        for t, (query, query_row, weights, weight_row) in enumerate(per_step):
            product.add(bases[t], inputs[t], out=steps[t].gates)
            advance(steps[t], scratch)
            torch.mm(steps[t].hidden, query2, out=query)
            torch.add(keys2, query_row, out=features)
            if t > 0:  # before the first step nothing has been attended to
                seen.copy_(windows[t])
                feature_rows.addmm_(seen_rows, kernel2)
            features.sigmoid_()
            torch.addmv(bias, feature_rows, v2, out=energy_row)
            torch.softmax(energies, 1, out=weights)
            contexts[t].copy_(torch.bmm(weight_row, values, out=context).squeeze(1))
            if t + 1 < T_dec:
                history.last[t + 1].copy_(weights)
                torch.add(history.summed[t], weights, out=history.summed[t + 1])
        ctx.save_for_backward(recurrent, query_weight, kernel, v, keys, values, mask,
                              gates, queries, alignments, states, cells, padded)
        ctx.compute_dtype = compute_dtype
        return states[1:], alignments

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_states: Tensor, grad_alignments: Tensor) -> Grads:
        with torch.autocast(grad_states.device.type, enabled=False):
            walk = AttentionBackward(ctx.saved_tensors, ctx.compute_dtype, grad_states, grad_alignments)
            walk.run()
            return *walk.gradients(ctx.needs_input_grad), None, None, None


class AttentionBackward:
    """One walk from the last step of an `AttentionLoop` to the first."""

    def __init__(
        self, saved: tuple[Tensor, ...], compute_dtype: torch.dtype | None, grad_states: Tensor, grad_weights: Tensor
    ) -> None:
        self.recurrent, self.query_weight, kernel, self.v, self.keys, self.values = saved[:6]
        mask, gates, self.queries, self.alignments, self.states, cells, padded = saved[6:]
        T_dec, B, T_text = self.alignments.shape
        D, A, kernel_size = cells.size(2), self.keys.size(2), kernel.size(2)
        self.compute_dtype, self.D = compute_dtype, D
        self.history = WeightHistory(padded, kernel_size=kernel_size)
        self.cell = CellBackward(gates, cells, mask)
        self.keys2, self.kernel2 = 2 * self.keys, 2 * kernel.flatten(1).t()  # see the forward
        self.flipped = kernel.flip(2).flatten(1).t().contiguous()  # [2 * kernel_size, A]
        self.grad_states = grad_states.clone(memory_format=torch.contiguous_format)
        self.grad_weights = grad_weights.clone(memory_format=torch.contiguous_format)
        self.grad_energies, self.grad_queries = torch.empty_like(self.alignments), torch.empty_like(self.queries)
        self.grad_keys, self.grad_v = torch.zeros_like(self.keys), torch.zeros_like(self.v)
        self.grad_kernel = kernel.new_zeros(2 * kernel_size, A)
        self._lay_out_flow(B, T_text, kernel_size)
        self.chunk = chunk_steps(B * max(T_text * A, 4 * D))

    def _lay_out_flow(self, B: int, T_text: int, kernel_size: int) -> None:
        """Scratch for the transposed convolution, as one sum along a skewed view.

        Position m takes, for sample j of a window, the product of position m - j + pad. With the samples flipped
        that lies at a fixed distance ahead per sample; channel 1 is stored `kernel_size` further right so that
        the rows of both channels make one run.
        """
        pad, L = kernel_size // 2, T_text + 3 * kernel_size - 2
        products = self.keys.new_zeros(2 * kernel_size, B, L)
        self.to_last = products[:kernel_size, :, pad : pad + T_text]
        self.to_summed = products[kernel_size:, :, pad + kernel_size : pad + kernel_size + T_text]
        self.skewed = products.as_strided((2 * kernel_size, B, T_text), (B * L + 1, L, 1))
        self.flow = self.keys.new_zeros(B, T_text)

    def prepare(self, start: int, stop: int) -> tuple[Tensor, Tensor, Tensor]:
        """For the steps start..stop-1, whatever needs no later step's gradient.

        -> windows [2 * kernel_size, n * B * T_text], s = sigmoid(2z) and de/dz, both [n, B, T_text, A].
        """
        seen = self.history.rows(start, stop)
        s = torch.mm(seen.t(), self.kernel2).view(stop - start, *self.keys.shape)
        s.add_(self.queries[start:stop].unsqueeze(2)).add_(self.keys2).sigmoid_()
        slope = torch.ops.aten.sigmoid_backward((4 * self.v).expand_as(s), s)  # v (1 - tanh(z)^2)
        return seen, s, slope

    def run(self) -> None:
        T_dec, B, T_text = self.alignments.shape
        A, kernel_size = self.v.numel(), self.flipped.size(0) // 2
        self.product = RecurrentProduct(self.recurrent.t(), n_rows=B, compute_dtype=self.compute_dtype)
        self._open_views()
        for start, stop in chunks_from_the_end(T_dec, self.chunk):
            self.cell.prepare(start, stop)
            seen, s, slope = self.prepare(start, stop)
            back = torch.mm(self.flipped, slope.view(-1, A).t())
            back = back.view(2, kernel_size, stop - start, B, T_text)
            steps = list(zip(slope.unbind(0), back[0].unbind(1), back[1].unbind(1), strict=True))
            for t in range(stop - 1, start - 1, -1):
                self.step(t, *steps[t - start])
            grad_energies = self.grad_energies[start:stop]
            # tanh = 2s - 1. Summed text by text: one sum over all positions would lose digits in fp32.
            rows = torch.bmm(grad_energies.view(-1, 1, T_text), s.sub_(0.5).view(-1, T_text, A))
            self.grad_v.add_(rows.sum((0, 1)), alpha=2.0)
            grad_z = slope.mul_(grad_energies.unsqueeze(3))  # [n, B, T_text, A]
            self.grad_keys.add_(grad_z.sum(0) if stop - start > 1 else grad_z[0])
            self.grad_kernel.addmm_(seen, grad_z.view(-1, A))

    def _open_views(self) -> None:
        """A view of every step, cut once: cutting them in the loop would cost as much as the arithmetic."""
        self.at_state = self.grad_states.unbind(0)
        self.at_hidden = self.grad_states[:, :, : self.D].unbind(0)
        self.at_context = self.grad_states[:, :, self.D :].unsqueeze(2).unbind(0)  # [B, 1, E]
        self.at_weights, self.at_weight_row = self.grad_weights.unbind(0), self.grad_weights.unsqueeze(2).unbind(0)
        self.weights = self.alignments.unbind(0)
        self.at_energies, self.at_energy_row = self.grad_energies.unbind(0), self.grad_energies.unsqueeze(2).unbind(0)
        self.at_query, self.at_query_row = self.grad_queries.unbind(0), self.grad_queries.unsqueeze(2).unbind(0)
        self.values_t = self.values.transpose(1, 2)

    def step(self, t: int, slope: Tensor, back_to_last: Tensor, back_to_summed: Tensor) -> None:
        """slope [B, T_text, A] = de/dz, back_to_* [kernel_size, B, T_text] = de/d(window samples)."""
        grad_weights, grad_energies = self.at_weights[t], self.at_energies[t]
        grad_weights.add_(self.flow)
        self.at_weight_row[t].baddbmm_(self.at_context[t], self.values_t)
        torch._softmax_backward_data(grad_weights, self.weights[t], 1, self.v.dtype, grad_input=grad_energies)
        torch.bmm(self.at_energy_row[t], slope, out=self.at_query_row[t])
        self.at_hidden[t].addmm_(self.at_query[t], self.query_weight)
        grad_gates = self.cell.step(t, self.at_hidden[t])
        if t > 0:
            self.product.add(self.at_state[t - 1], grad_gates, out=self.at_state[t - 1])
            torch.mul(back_to_last, grad_energies, out=self.to_last)
            self.to_summed.addcmul_(back_to_summed, grad_energies)  # the sum of weights feeds all later steps
            torch.sum(self.skewed, 0, out=self.flow)

    def gradients(self, needed: tuple[bool, ...]) -> Grads:
        """In the order of `AttentionLoop`'s inputs; the products over all steps only where asked for."""
        grad_gates = self.cell.grad_gates
        grad_recurrent = grad_query = grad_values = None
        if needed[1]:
            flat = grad_gates.flatten(0, 1)
            rounded = self.compute_dtype or flat.dtype
            before = self.states[:-1].flatten(0, 1).to(rounded)
            grad_recurrent = transposed_product(flat.to(rounded), before, flat.dtype)
        if needed[2]:
            hidden = self.states[1:, :, : self.D].flatten(0, 1)
            grad_query = self.grad_queries.flatten(0, 1).t() @ hidden
        if needed[6]:
            grad_contexts = self.grad_states[:, :, self.D :].transpose(0, 1)  # [B, T_dec, E]
            grad_values = torch.bmm(self.alignments.permute(1, 2, 0), grad_contexts)
        kernel_size = self.grad_kernel.size(0) // 2
        grad_kernel = self.grad_kernel.t().reshape(-1, 2, kernel_size)
        return grad_gates, grad_recurrent, grad_query, grad_kernel, self.grad_v, self.grad_keys, grad_values
