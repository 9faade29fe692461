r"""An LSTM cell stepped in place, and its backward with everything that does not depend on later steps done ahead.

With activated gates i, f, g, o (the order of torch), D the dropout mask of the hidden state and c_ the cell before:

    c = f c_ + i g                 h = D o tanh(c)

    dc  = dc_later f_later + dh D o (1 - tanh(c)^2)
    da  = [dc g i(1-i),  dc c_ f(1-f),  dc i (1-g^2),  dh D tanh(c) o(1-o)]       before activation

Every factor of dc and dh on the right is known before the backward loop starts, so it is computed for many steps at
once and the loop itself is four products. tanh(x) = 2 sigmoid(2x) - 1 throughout: on CPUs torch's sigmoid is
about six times as fast as its tanh.
"""

from typing import NamedTuple

import torch
from torch import Tensor

aten = torch.ops.aten


class CellStep(NamedTuple):
    """Views of one step into the buffers of all steps; every one [B, D] but gates [B, 4D]."""

    gates: Tensor  # before the step its input sums, after it sigmoid(i), sigmoid(f), (1 - g) / 2, sigmoid(o)
    input: Tensor
    forget: Tensor
    candidate: Tensor
    output: Tensor
    cell_before: Tensor
    cell: Tensor
    hidden: Tensor
    mask: Tensor | None


def cell_steps(gates: Tensor, cells: Tensor, hidden: Tensor, mask: Tensor | None) -> list[CellStep]:
    """gates [T_dec, B, 4D], cells [T_dec + 1, B, D], hidden and mask [T_dec, B, D] -> a view for each step."""
    by_gate = [part.unbind(0) for part in gates.chunk(4, 2)]
    masks = [None] * len(gates) if mask is None else mask.unbind(0)
    rows = zip(
        gates.unbind(0), *by_gate, cells[:-1].unbind(0), cells[1:].unbind(0), hidden.unbind(0), masks, strict=True
    )
    return [CellStep(*row) for row in rows]


def advance(step: CellStep, scratch: Tensor) -> None:
    """Turns the input sums in `step.gates` into activations and writes cell and hidden. scratch [B, D]."""
    step.candidate.mul_(-2.0)
    step.gates.sigmoid_()  # g = 1 - 2 sigmoid(-2a)
    torch.mul(step.forget, step.cell_before, out=step.cell)
    step.cell.add_(step.input).addcmul_(step.input, step.candidate, value=-2.0)
    torch.mul(step.cell, -2.0, out=scratch).sigmoid_()
    torch.addcmul(step.output, step.output, scratch, value=-2.0, out=step.hidden)  # o - 2 o sigmoid(-2c) = o tanh(c)
    if step.mask is not None:
        step.hidden.mul_(step.mask)


class CellBackward:
    """Gradients of a loop of cells, from the last step to the first.

    gates and cells as `advance` left them, mask [T_dec, B, D] or None; they are only read, so the same graph can be
    walked again. After all steps grad_gates [T_dec, B, 4D] holds the gradients of the input sums. grad_cell [B, D]
    is that of the last cell, and in the end that of the first.
    """

    def __init__(
        self, gates: Tensor, cells: Tensor, mask: Tensor | None, grad_gates: Tensor, grad_cell: Tensor
    ) -> None:
        T_dec, B, D = gates.size(0), gates.size(1), cells.size(2)
        self.gates, self.cells, self.mask = gates.view(T_dec, B, 4, D), cells, mask
        self.factors = grad_gates.view(T_dec, B, 4, D)  # becomes the gradients step by step
        self.grad_cell = grad_cell
        self._of_steps = grad_gates.unbind(0)
        self._by_cell, self._by_hidden = self.factors[:, :, :3].unbind(0), self.factors[:, :, 3].unbind(0)
        self._forget = self.gates[:, :, 1].unbind(0)
        self._start = 0
        self._into_cell: tuple[Tensor, ...] = ()

    def prepare(self, start: int, stop: int) -> None:
        """Factors of the steps start..stop-1, which `step` may then visit."""
        i, f, u, o = self.gates[start:stop].unbind(2)  # [n, B, D]
        to_i, to_f, to_g, to_o = self.factors[start:stop].unbind(2)
        before, cell = self.cells[start:stop], self.cells[start + 1 : stop + 1]
        g = u.mul(-2.0).add_(1.0)
        tanh_cell = cell.mul(2.0).sigmoid_().mul_(2.0).sub_(1.0)
        aten.sigmoid_backward.grad_input(g, i, grad_input=to_i)
        aten.sigmoid_backward.grad_input(before, f, grad_input=to_f)
        aten.tanh_backward.grad_input(i, g, grad_input=to_g)
        mask = None if self.mask is None else self.mask[start:stop]
        aten.sigmoid_backward.grad_input(tanh_cell if mask is None else tanh_cell * mask, o, grad_input=to_o)
        self._start = start
        self._into_cell = aten.tanh_backward(o if mask is None else o * mask, tanh_cell).unbind(0)

    def step(self, t: int, grad_hidden: Tensor) -> Tensor:
        """grad_hidden [B, D] of step t, all uses summed -> gradient of its input sums [B, 4D]."""
        self.grad_cell.addcmul_(grad_hidden, self._into_cell[t - self._start])
        self._by_cell[t].mul_(self.grad_cell.unsqueeze(1))
        self._by_hidden[t].mul_(grad_hidden)
        self.grad_cell.mul_(self._forget[t])
        return self._of_steps[t]
