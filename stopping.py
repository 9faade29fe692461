"""When an utterance that is spoken without a teacher has ended, and why."""

from dataclasses import dataclass

import torch
from torch import Tensor

from metrics import StopReason


@dataclass(frozen=True)
class DecodeLimits:
    """When free-running decoding ends other than by the gate. Frames, not decoder steps."""

    max_frames: int  # for any text
    gate_threshold: float = 0.5
    frames_per_symbol: float = 10.0  # budget of a text: budget_offset + frames_per_symbol * its symbols
    budget_offset: int = 30
    dwell_frames: int = 60  # so long on the last symbol means the text is spoken and the gate missed it

    def budget(self, text_lengths: Tensor) -> Tensor:
        """Most frames for each text: [B] -> [B]."""
        by_text = self.budget_offset + self.frames_per_symbol * text_lengths
        return by_text.ceil().long().clamp(max=self.max_frames)


class StopWatch:
    """Decides for every utterance of a batch when it has stopped, and why.

    The gate says so; or attention has stayed on the last symbol for `dwell_frames`; or the text's own length
    budget or the limit for any text is used up. Only the first reason counts.
    """

    def __init__(self, text_lengths: Tensor, limits: DecodeLimits, r: int) -> None:
        self.limits, self.r, self.step = limits, r, 0
        self.last_symbol = text_lengths - 1
        self.budget = limits.budget(text_lengths)
        self.dwell = torch.zeros_like(text_lengths)
        self.n_steps = torch.zeros_like(text_lengths)  # 0 = still speaking
        self.reasons: list[StopReason] = ["limit"] * len(text_lengths)

    @property
    def all_stopped(self) -> bool:
        return bool((self.n_steps > 0).all())

    def observe(self, gate: Tensor, weights: Tensor) -> None:
        """gate [B] stop probability, weights [B, T_text] of the step just taken."""
        self.step += 1
        on_last = weights.argmax(1) == self.last_symbol
        self.dwell = torch.where(on_last, self.dwell + self.r, 0)
        # Said early while attention is still in the text's first half, "stop" is a mistake; NVIDIA obeys it too.
        self._stop(gate > self.limits.gate_threshold, "gate", self.step)
        self._stop(self.dwell >= self.limits.dwell_frames, "dwell", self.step)
        frames = self.step * self.r
        over = frames >= self.budget
        self._stop(over & (self.budget < self.limits.max_frames), "budget", self.step)
        self._stop(over, "limit", self.step)

    def _stop(self, now: Tensor, reason: StopReason, n_steps: int) -> None:
        fresh = now & (self.n_steps == 0)
        self.n_steps = torch.where(fresh, n_steps, self.n_steps)
        for i in fresh.nonzero().flatten().tolist():
            self.reasons[i] = reason
