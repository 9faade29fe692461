r"""CTC loss (Graves et al. 2006) of a batch whose lengths lie on the device; PyTorch's own reads them on the host.

The target with blanks around every symbol has the states s = 0..S-1, S = 2 N + 1. alpha_t(s) sums over all ways to
have read the first t + 1 frames and to be in state s, all in logarithms:

    alpha_t(s) = log p_t(s) + log(e^alpha_{t-1}(s) + e^alpha_{t-1}(s-1) + e^(alpha_{t-1}(s-2) + skip(s)))

skip(s) is 0 where s may be reached from s - 2, else -inf. beta, the same from the end, is the alpha of the mirrored
frames and states, so both run in one loop. The share of the ways that are in s at t is

    e^(alpha_t(s) + beta_t(s) - log p_t(s) + loss)

and the gradient of the loss with respect to log p_t(c) the negative sum of it over the states of symbol c.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from kernels.chunked_steps import Steps, pad_to_multiple, role, run_steps

EDGE = 2  # columns before the first state, from which nothing comes


def ctc_losses(log_probs: Tensor, targets: Tensor, steps: Tensor, lengths: Tensor, *, chunk: int | None) -> Tensor:
    """As `F.ctc_loss` without reduction and with the blank last, for log_probs that `log_softmax` made: [B].

    log_probs [T, B, C], targets [B, N], steps [B] valid frames, lengths [B] of the targets. 0 where no way is long
    enough (`zero_infinity`). `chunk` as in `kernels.chunked_steps.run_steps`.
    """
    return _CtcLosses.apply(log_probs, targets, steps, lengths, chunk)


@dataclass(frozen=True, kw_only=True, eq=False)
class Recursion(Steps):
    """n frames of the recursion over states."""

    skip: Tensor  # [rows, S]
    emitted: Tensor = role("input")  # [n, rows, S] log p
    alphas: Tensor = role("inout")  # [n + 1, rows, EDGE + S], -inf in the edge

    def run(self) -> None:
        S, ways = self.skip.size(1), torch.empty_like(self.skip)
        for t, emitted in enumerate(self.emitted.unbind(0)):
            stay, move, leap = (self.alphas[t, :, start : start + S] for start in (EDGE, EDGE - 1, EDGE - 2))
            torch.add(leap, self.skip, out=ways)
            torch.logaddexp(ways, move, out=ways)
            torch.logaddexp(ways, stay, out=ways)
            torch.add(ways, emitted, out=self.alphas[t + 1, :, EDGE:])


class _CtcLosses(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, log_probs: Tensor, targets: Tensor, steps: Tensor, lengths: Tensor, chunk: int | None
    ) -> Tensor:
        T, B, C = log_probs.shape
        padded = pad_to_multiple(log_probs, 0, chunk or 1)
        n_states = (2 * lengths + 1).unsqueeze(1)  # [B, 1]
        states = torch.arange(2 * targets.size(1) + 1, device=targets.device)  # [S]
        frames = torch.arange(len(padded), device=steps.device)[:, None]  # [T, 1]
        labels = torch.full((B, len(states)), C - 1, device=targets.device).index_copy_(1, states[1::2], targets)
        # where the other end sees them; behind an utterance or its text it is of no matter
        mirrored_frames = ((steps - 1 - frames) % len(padded)).unsqueeze(2)  # [T, B, 1]
        mirrored_states = (n_states - 1 - states) % len(states)  # [B, S]
        both_labels = torch.cat((labels, labels.gather(1, mirrored_states)))
        both_probs = torch.cat((padded, padded.gather(0, mirrored_frames.expand_as(padded))), 1)  # [T, 2B, C]
        emitted = both_probs.gather(2, both_labels.expand(len(padded), -1, -1))
        emitted = emitted.masked_fill_((states >= n_states).repeat(2, 1), -torch.inf)  # [T, 2B, S]
        alphas = emitted.new_full((len(padded) + 1, 2 * B, EDGE + len(states)), -torch.inf)
        alphas[0, :, EDGE - 1] = 0.0  # before the first frame: from here one moves to state 0 or leaps to state 1
        skip = emitted.new_zeros(both_labels.shape).masked_fill_(~can_be_skipped_to(both_labels), -torch.inf)
        run_steps(Recursion(skip=skip, emitted=emitted, alphas=alphas), chunk=chunk)

        ends = alphas[steps, torch.arange(B, device=steps.device)].gather(1, torch.cat((n_states, n_states + 1), 1))
        losses = -ends.logsumexp(1)
        there, back, emitted = alphas[1 : T + 1, :B, EDGE:], alphas[1:, B:, EDGE:], emitted[:T, :B]
        back = back.gather(0, mirrored_frames[:T].expand_as(there)).gather(2, mirrored_states.expand_as(there))
        counts = (frames[:T] < steps).unsqueeze(2) & (emitted > -torch.inf) & losses.isfinite().unsqueeze(1)
        share = (there + back - emitted + losses.unsqueeze(1)).exp_().masked_fill_(~counts, 0.0)  # [T, B, S]
        ctx.save_for_backward(share, labels)
        ctx.n_labels = C
        return losses.masked_fill(losses.isinf(), 0.0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_losses: Tensor) -> tuple[Tensor | None, ...]:
        share, labels = ctx.saved_tensors
        is_label = (labels.unsqueeze(2) == torch.arange(ctx.n_labels, device=labels.device)).to(share.dtype)
        grad = torch.bmm((share * -grad_losses.unsqueeze(1)).transpose(0, 1), is_label)  # [B, T, C]
        return grad.transpose(0, 1), None, None, None, None


def can_be_skipped_to(labels: Tensor) -> Tensor:
    """The states that follow the one before last: symbols, unless they repeat the one before. [B, S] -> [B, S]"""
    before = F.pad(labels, (EDGE, 0), value=-1)[:, : labels.size(1)]
    is_symbol = torch.arange(labels.size(1), device=labels.device) % 2 == 1
    return is_symbol & (labels != before)
