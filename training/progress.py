"""The counters of a run that its checkpoints keep."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any

from hparams import HParams


@dataclass
class Progress:
    """Counters that a checkpoint keeps. Plateau and early stopping count only once the model has aligned."""

    step: int = 0
    epoch: int = 0
    batch_in_epoch: int = 0  # loader batches done in this epoch
    aligned_at: int = -1  # step of the first validation whose alignment reached the threshold
    best_score: float = inf
    best_step: int = 0
    plateau_best: float = inf
    plateau_step: int = 0  # when plateau_best was reached, or the rate last cut
    stopping_best: float = inf  # what early stopping compares with: small gains that add up count
    bad_validations: int = 0
    learning_rate_scale: float = 1.0
    splits: int = 1  # parts that a batch is taken in, so that memory suffices
    rollbacks: int = 0  # number of the last one that this state knows of
    rollback_scale: float = 1.0  # what rollbacks left of the learning rate
    skipped_ranges: list[tuple[tuple[int, int], tuple[int, int]]] = field(default_factory=list)  # see `skip_data`

    @classmethod
    def of(cls, saved: Mapping[str, Any]) -> "Progress":
        """As a checkpoint keeps it; `passed_over` is what version 0.1.0 called `skipped_ranges`."""
        return cls(**{"skipped_ranges" if name == "passed_over" else name: value for name, value in saved.items()})

    @property
    def position(self) -> tuple[int, int]:
        """Epoch, and batch in it, that comes next."""
        return self.epoch, self.batch_in_epoch

    def skip_data(self) -> bool:
        """Moves on if the next batch is in a stretch of data that a rollback left out. -> whether it was

        A stretch is [first position, end position), positions compare as tuples.
        """
        ends = [end for first, end in self.skipped_ranges if tuple(first) <= self.position < tuple(end)]
        if ends:
            self.epoch, self.batch_in_epoch = max(ends)
        return bool(ends)

    def update_best(self, score: float, alignment: float, hp: HParams) -> bool:
        """Takes a validation's result in. -> whether it is the best so far."""
        if self.aligned_at < 0 and alignment >= hp.alignment_diagonal_threshold and self.step >= hp.warmup_steps:
            self.aligned_at = self.plateau_step = self.step
        is_best = score < self.best_score
        if is_best:
            self.best_score, self.best_step = score, self.step
        if self.aligned_at >= 0:
            if score < self.stopping_best - hp.early_stopping_min_delta:
                self.stopping_best, self.bad_validations = score, 0
            else:
                self.bad_validations += 1
        return is_best

    def plateau_reached(self, score: float, hp: HParams) -> bool:
        """Whether the rate is to be cut now: no better score for `learning_rate_decay_patience` steps."""
        if hp.anneal_steps or self.aligned_at < 0:
            return False
        if score < self.plateau_best - hp.early_stopping_min_delta:
            self.plateau_best, self.plateau_step = score, self.step
        if self.step - self.plateau_step < hp.learning_rate_decay_patience:
            return False
        floor = min(1.0, hp.learning_rate_min / hp.learning_rate)
        if self.learning_rate_scale <= floor:
            return False
        self.learning_rate_scale = max(self.learning_rate_scale * hp.learning_rate_decay, floor)
        self.plateau_step = self.step
        return True

    def should_stop_early(self, hp: HParams) -> bool:
        return hp.early_stopping and self.bad_validations >= hp.early_stopping_patience
