"""What the decoder's two loops do in n steps, forward and backward; formulas stand in `kernels.teacher_forced`.

Here is the one place where a step's operations are told. They run on whole sequences, and recorded on chunks of them
(`kernels.chunked_steps`), so nothing here may ask for a value that lies on the device.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from kernels.chunked_steps import Steps, role
from kernels.host_sync import is_gpu
from kernels.lstm_cell import CellBackward, advance, cell_steps
from kernels.matmul import RecurrentProduct, chunks_from_the_end

# Of the largest buffer the backward computes ahead: a megabyte of fp32 stays in a core's cache, sixteen in a GPU's
CHUNK_ELEMENTS, CHUNK_ELEMENTS_OF_GPU = 1 << 18, 1 << 22


def chunk_steps(elements_per_step: int, device: torch.device) -> int:
    """How many steps the backward prepares at once: many where steps are small and calls dear."""
    return max(1, (CHUNK_ELEMENTS_OF_GPU if is_gpu(device) else CHUNK_ELEMENTS) // elements_per_step)


@dataclass(frozen=True, kw_only=True, eq=False)
class RecurrentForward(Steps):
    """An LSTM whose dropped-out hidden state is fed back."""

    weight: Tensor  # [4D, D]
    mask: Tensor | None = role("input", may_lack=True)  # [n, B, D]
    gates: Tensor = role("inout")  # [n, B, 4D] input sums with biases, then what `kernels.lstm_cell.CellStep` says
    states: Tensor = role("state")  # [n + 1, B, D]
    cells: Tensor = role("state")  # [n + 1, B, D]

    def run(self) -> None:
        product = RecurrentProduct(self.weight, n_rows=self.gates.size(1))
        scratch = torch.empty_like(self.cells[0])
        steps = cell_steps(self.gates, self.cells, self.states[1:], self.mask)
        for state, step in zip(self.states[:-1].unbind(0), steps, strict=True):
            product.add(step.gates, state, out=step.gates)
            advance(step, scratch)


@dataclass(frozen=True, kw_only=True, eq=False)
class RecurrentBackward(Steps):
    """Gradients of the input sums of a `RecurrentForward`."""

    runs_backward: ClassVar[bool] = True

    weight: Tensor  # [D, 4D], transposed
    mask: Tensor | None = role("input", may_lack=True)  # [n, B, D]
    gates: Tensor = role("input")  # [n, B, 4D]
    cells: Tensor = role("input")  # [n + 1, B, D]
    grad_states: Tensor = role("inout")  # [n + 1, B, D] what is sent to each state, then all that reaches it
    grad_cell: Tensor = role("accumulator")  # [B, D]
    grad_gates: Tensor = role("output")  # [n, B, 4D]

    def run(self) -> None:
        n, B, D4 = self.gates.shape
        cell = CellBackward(self.gates, self.cells, self.mask, self.grad_gates, self.grad_cell)
        product = RecurrentProduct(self.weight, n_rows=B)
        grads = self.grad_states.unbind(0)
        for start, stop in chunks_from_the_end(n, chunk_steps(B * D4, self.gates.device)):
            cell.prepare(start, stop)
            for t in range(stop - 1, start - 1, -1):
                product.add(grads[t], cell.step(t, grads[t + 1]), out=grads[t])


class WeightHistory:
    """Last and summed attention weights before every step, zero-padded, and the windows of them the kernel sees."""

    def __init__(self, padded: Tensor, *, kernel_size: int) -> None:
        """padded [n, B, 2, T_text + kernel_size - 1], contiguous."""
        n, B, _, L = padded.shape
        T_text, pad = L - kernel_size + 1, kernel_size // 2
        inner = padded[..., pad : pad + T_text]
        self.last, self.summed = inner[:, :, 0].unbind(0), inner[:, :, 1].unbind(0)  # [B, T_text] a step
        # Window sample j of position n is padded[n + j]; n runs innermost so that copies are long runs.
        size, strides = (2, kernel_size, n, B, T_text), (L, 1, 2 * B * L, 2 * L, 1)
        self.windows = padded.as_strided(size, strides, padded.storage_offset())

    def rows(self, start: int, stop: int) -> Tensor:
        """-> [2 * kernel_size, (stop - start) * B * T_text], a copy."""
        return self.windows[:, :, start:stop].reshape(2 * self.windows.size(1), -1)


@dataclass(frozen=True, kw_only=True, eq=False)
class AttentionForward(Steps):
    """Attention LSTM and location-sensitive attention.

    s = sigmoid(2z) stands for tanh(z) = 2s - 1; softmax does not see the constant this leaves in the energies. So some
    weights come doubled.
    """

    weight: Tensor  # [4D, D + E] reads hidden state and context
    query2: Tensor  # [D, A]
    kernel2: Tensor  # [2 * kernel_size, A]
    v2: Tensor  # [A]
    keys2: Tensor  # [B, T_text, A]
    values: Tensor  # [B, T_text, E]
    padding_bias: Tensor  # [B, T_text] 0 or -inf
    mask: Tensor | None = role("input", may_lack=True)  # [n, B, D]
    gates: Tensor = role("inout")  # [n, B, 4D] as in `RecurrentForward`
    states: Tensor = role("state")  # [n + 1, B, D + E] hidden state and context
    cells: Tensor = role("state")  # [n + 1, B, D]
    padded: Tensor = role("inout")  # [n + 1, B, 2, T_text + kernel_size - 1] the `WeightHistory`, zeros around it
    queries: Tensor = role("output")  # [n, B, A]
    alignments: Tensor = role("output")  # [n, B, T_text]

    def run(self) -> None:
        B, T_text, A = self.keys2.shape
        D, kernel_size = self.cells.size(2), self.kernel2.size(0) // 2
        new = self.keys2.new_empty
        history = WeightHistory(self.padded, kernel_size=kernel_size)
        product = RecurrentProduct(self.weight, n_rows=B)
        scratch, energies, context = new(B, D), new(B, T_text), new(B, 1, self.values.size(2))
        seen, features = new(2, kernel_size, B, T_text), new(B, T_text, A)
        seen_rows, feature_rows = seen.view(2 * kernel_size, -1).t(), features.view(-1, A)
        bias, energy_row = self.padding_bias.flatten(), energies.view(-1)
        inputs, contexts = self.states[:-1].unbind(0), self.states[1:, :, D:].unbind(0)
        pasts = pairwise(zip(history.last, history.summed, history.windows.unbind(2), strict=True))
        cells = cell_steps(self.gates, self.cells, self.states[1:, :, :D], self.mask)
        rows = zip(self.queries.unbind(0), self.queries.unsqueeze(2).unbind(0), self.alignments.unbind(0),
                   self.alignments.unsqueeze(2).unbind(0), strict=True)  # fmt: skip
        for t, ((query, query_row, weights, weight_row), (past, later)) in enumerate(zip(rows, pasts, strict=True)):
            product.add(cells[t].gates, inputs[t], out=cells[t].gates)
            advance(cells[t], scratch)
            torch.mm(cells[t].hidden, self.query2, out=query)
            torch.add(self.keys2, query_row, out=features)
            seen.copy_(past[2])
            feature_rows.addmm_(seen_rows, self.kernel2).sigmoid_()
            torch.addmv(bias, feature_rows, self.v2, out=energy_row)
            torch.softmax(energies, 1, out=weights)
            contexts[t].copy_(torch.bmm(weight_row, self.values, out=context).squeeze(1))
            later[0].copy_(weights)
            torch.add(past[1], weights, out=later[1])


@dataclass(frozen=True, kw_only=True, eq=False)
class AttentionBackward(Steps):
    """Gradients of an `AttentionForward`."""

    runs_backward: ClassVar[bool] = True

    weight: Tensor  # [D + E, 4D], transposed
    query_weight: Tensor  # [A, D]
    kernel2: Tensor  # [2 * kernel_size, A]
    flipped: Tensor  # [2 * kernel_size, A] the samples of each window in reverse
    v: Tensor  # [A]
    keys2: Tensor  # [B, T_text, A]
    values: Tensor  # [B, T_text, E]
    mask: Tensor | None = role("input", may_lack=True)  # [n, B, D]
    gates: Tensor = role("input")  # [n, B, 4D]
    cells: Tensor = role("input")  # [n + 1, B, D]
    padded: Tensor = role("input")  # [n, B, 2, T_text + kernel_size - 1]
    queries: Tensor = role("input")  # [n, B, A]
    alignments: Tensor = role("input")  # [n, B, T_text]
    grad_weights: Tensor = role("input")  # [n, B, T_text] what is sent to each alignment; used up
    grad_states: Tensor = role("inout")  # [n + 1, B, D + E] what is sent to each state, then all that reaches it
    grad_cell: Tensor = role("accumulator")  # [B, D]
    grad_flow: Tensor = role("accumulator")  # [B, T_text] what later windows send to the weights of the step at hand
    sent_back: Tensor = role("accumulator")  # [2 * kernel_size, B, T_text + 3 * kernel_size - 2], see `AttentionWalk`
    grad_keys: Tensor = role("accumulator")  # [B, T_text, A]
    grad_kernel: Tensor = role("accumulator")  # [2 * kernel_size, A]
    grad_v: Tensor = role("accumulator")  # [A]
    grad_gates: Tensor = role("output")  # [n, B, 4D]
    grad_queries: Tensor = role("output")  # [n, B, A]

    def run(self) -> None:
        B, T_text, A = self.keys2.shape
        size = chunk_steps(B * max(T_text * A, self.gates.size(2)), self.gates.device)
        walk = AttentionWalk(self)
        for start, stop in chunks_from_the_end(self.n_steps, size):
            walk.visit(start, stop)


class AttentionWalk:
    """One walk from the last step of an `AttentionBackward` to the first, some steps at a time."""

    def __init__(self, given: AttentionBackward) -> None:
        self.given, self.kernel_size, self.D = given, given.kernel2.size(0) // 2, given.cells.size(2)
        self.history = WeightHistory(given.padded, kernel_size=self.kernel_size)
        self.cell = CellBackward(given.gates, given.cells, given.mask, given.grad_gates, given.grad_cell)
        self.product = RecurrentProduct(given.weight, n_rows=given.gates.size(1))
        self.grad_energies = torch.empty_like(given.alignments)
        self._lay_out_flow(*given.alignments.shape[1:])
        self._open_views()

    def _lay_out_flow(self, B: int, T_text: int) -> None:
        """Views for the transposed convolution, as one sum along a skewed one.

        Position m takes, for sample j of a window, the product of position m - j + pad. With the samples flipped
        that lies at a fixed distance ahead per sample; channel 1 is stored `kernel_size` further right so that
        the rows of both channels make one run.
        """
        kernel_size, products = self.kernel_size, self.given.sent_back
        pad, L = kernel_size // 2, products.size(2)
        self.to_last = products[:kernel_size, :, pad : pad + T_text]
        self.to_summed = products[kernel_size:, :, pad + kernel_size : pad + kernel_size + T_text]
        self.skewed = products.as_strided((2 * kernel_size, B, T_text), (B * L + 1, L, 1))

    def _open_views(self) -> None:
        """A view of every step, cut once: cutting them in the loop would cost as much as the arithmetic."""
        given, D = self.given, self.D
        self.at_state = given.grad_states.unbind(0)  # of step t: before it t, after it t + 1
        self.at_hidden = given.grad_states[1:, :, :D].unbind(0)
        self.at_context = given.grad_states[1:, :, D:].unsqueeze(2).unbind(0)  # [B, 1, E]
        self.at_weights, self.at_weight_row = given.grad_weights.unbind(0), given.grad_weights.unsqueeze(2).unbind(0)
        self.weights = given.alignments.unbind(0)
        self.at_energies, self.at_energy_row = self.grad_energies.unbind(0), self.grad_energies.unsqueeze(2).unbind(0)
        self.at_query, self.at_query_row = given.grad_queries.unbind(0), given.grad_queries.unsqueeze(2).unbind(0)
        self.values_t = given.values.transpose(1, 2)

    def visit(self, start: int, stop: int) -> None:
        """The steps from stop - 1 down to start, and what they add to the sums."""
        given, (B, T_text, A) = self.given, self.given.keys2.shape
        self.cell.prepare(start, stop)
        seen, s, slope = self.prepare(start, stop)
        back = torch.mm(given.flipped, slope.view(-1, A).t())
        back = back.view(2, self.kernel_size, stop - start, B, T_text)
        steps = list(zip(slope.unbind(0), back[0].unbind(1), back[1].unbind(1), strict=True))
        for t in range(stop - 1, start - 1, -1):
            self.step(t, *steps[t - start])
        grad_energies = self.grad_energies[start:stop]
        # tanh = 2s - 1. Summed text by text: one sum over all positions would lose digits in fp32.
        rows = torch.bmm(grad_energies.view(-1, 1, T_text), s.sub_(0.5).view(-1, T_text, A))
        given.grad_v.add_(rows.sum((0, 1)), alpha=2.0)
        grad_z = slope.mul_(grad_energies.unsqueeze(3))  # [n, B, T_text, A]
        given.grad_keys.add_(grad_z.sum(0) if stop - start > 1 else grad_z[0])
        given.grad_kernel.addmm_(seen, grad_z.view(-1, A))

    def prepare(self, start: int, stop: int) -> tuple[Tensor, Tensor, Tensor]:
        """For the steps start..stop-1, whatever needs no later step's gradient.

        -> windows [2 * kernel_size, n * B * T_text], s = sigmoid(2z) and de/dz, both [n, B, T_text, A].
        """
        given, seen = self.given, self.history.rows(start, stop)
        s = torch.mm(seen.t(), given.kernel2).view(stop - start, *given.keys2.shape)
        s.add_(given.queries[start:stop].unsqueeze(2)).add_(given.keys2).sigmoid_()
        slope = torch.ops.aten.sigmoid_backward((4 * given.v).expand_as(s), s)  # v (1 - tanh(z)^2)
        return seen, s, slope

    def step(self, t: int, slope: Tensor, back_to_last: Tensor, back_to_summed: Tensor) -> None:
        """slope [B, T_text, A] = de/dz, back_to_* [kernel_size, B, T_text] = de/d(window samples)."""
        given, grad_weights, grad_energies = self.given, self.at_weights[t], self.at_energies[t]
        grad_weights.add_(given.grad_flow)
        self.at_weight_row[t].baddbmm_(self.at_context[t], self.values_t)
        torch._softmax_backward_data(grad_weights, self.weights[t], 1, given.v.dtype, grad_input=grad_energies)
        torch.bmm(self.at_energy_row[t], slope, out=self.at_query_row[t])
        self.at_hidden[t].addmm_(self.at_query[t], given.query_weight)
        self.product.add(self.at_state[t], self.cell.step(t, self.at_hidden[t]), out=self.at_state[t])
        torch.mul(back_to_last, grad_energies, out=self.to_last)
        self.to_summed.addcmul_(back_to_summed, grad_energies)  # the sum of weights feeds all later steps
        torch.sum(self.skewed, 0, out=given.grad_flow)
