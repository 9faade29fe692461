"""When an utterance that is spoken without a teacher has ended, and why."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

StopReason = Literal["gate", "dwell", "budget", "limit"]


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


class DecodedSteps(NamedTuple):
    """Some steps of every text of a batch."""

    projected: Tensor  # [n, B, r * n_mels]
    gate_logits: Tensor  # [n, B]
    weights: Tensor  # [n, B, T_text]


class StopTracker:
    """Decides for every utterance of a batch when it has stopped, and why.

    The gate says so; or attention has stayed on the last symbol for `dwell_frames`; or the text's own length
    budget or the limit for any text is used up. Only the first reason counts.
    """

    def __init__(self, text_lengths: Tensor, limits: DecodeLimits, r: int) -> None:
        """text_lengths [B], in symbols; r: frames a decoder step."""
        self.limits, self.r, self.step = limits, r, 0
        self.last_symbol = text_lengths - 1
        # counted on the host: some numbers a text, while each operation on a device costs as much as a thousand of them
        self.budget: list[int] = limits.budget(text_lengths).tolist()
        self.frames_on_last_symbol = [0] * len(text_lengths)
        self.stopped_at = [0] * len(text_lengths)  # 0: still speaking
        self.reasons: list[StopReason] = ["limit"] * len(text_lengths)

    @property
    def all_stopped(self) -> bool:
        return all(self.stopped_at)

    @property
    def n_steps(self) -> Tensor:
        """Steps that each utterance took, 0 while it speaks: [B]"""
        return torch.tensor(self.stopped_at)

    def observe(self, gate: Tensor, weights: Tensor) -> None:
        """gate [B] stop probability, weights [B, T_text] of the step just taken."""
        self.update(self.stop_signals(gate.unsqueeze(0), weights.unsqueeze(0)).tolist())

    def stop_signals(self, gates: Tensor, weights: Tensor) -> Tensor:
        """Of n steps, whether the gate says stop and whether attention is on the last symbol.

        gates [n, B], weights [n, B, T_text] -> [n, B, 2]
        """
        return torch.stack((gates > self.limits.gate_threshold, weights.argmax(2) == self.last_symbol), 2)

    def update(self, signals: list[list[tuple[bool, bool]]]) -> None:
        """The `stop_signals` of the steps that follow on those before."""
        for step in signals:
            self.step += 1
            for i, (says_stop, is_on_last) in enumerate(step):
                self.frames_on_last_symbol[i] = self.frames_on_last_symbol[i] + self.r if is_on_last else 0
                reason = self._reason(i, says_stop=says_stop)
                if reason is not None and not self.stopped_at[i]:
                    self.stopped_at[i], self.reasons[i] = self.step, reason

    def _reason(self, i: int, *, says_stop: bool) -> StopReason | None:
        # Said early while attention is still in the text's first half, "stop" is a mistake; NVIDIA obeys it too.
        if says_stop:
            return "gate"
        if self.frames_on_last_symbol[i] >= self.limits.dwell_frames:
            return "dwell"
        if self.step * self.r < self.budget[i]:
            return None
        return "budget" if self.budget[i] < self.limits.max_frames else "limit"
