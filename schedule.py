"""What changes while a run goes on, as pure functions and small counters: learning rate, plateau, early stopping."""

from dataclasses import dataclass, field
from math import inf

from hparams import HParams, OptimisationParams, TeacherForcingParams


def learning_rate(step: int, hp: OptimisationParams, *, scale: float = 1.0) -> float:
    """Rate of optimiser step `step` (the first is 1).

    Linear warm-up to `learning_rate`; then either an exponential fall from `anneal_start` to `learning_rate_min`
    within `anneal_steps`, or `scale`, which the plateau decay lowers, with `learning_rate_min` as its floor.
    """
    warm = min(1.0, step / hp.warmup_steps) if hp.warmup_steps else 1.0
    peak = hp.learning_rate
    if hp.anneal_steps:
        done = min(max((step - hp.anneal_start) / hp.anneal_steps, 0.0), 1.0)
        return warm * peak * (hp.learning_rate_min / peak) ** done
    return warm * max(peak * scale, min(peak, hp.learning_rate_min))


def teacher_forcing_ratio(step: int, hp: TeacherForcingParams) -> float:
    """Chance that a decoder step of optimiser step `step` hears the recording.

    `p_teacher_forcing`; or with `use_scheduled_teacher_forcing` the start ratio until `teacher_forcing_decay_start`,
    and a linear fall to the end ratio after it.
    """
    if not hp.use_scheduled_teacher_forcing:
        return hp.p_teacher_forcing
    passed = (step - hp.teacher_forcing_decay_start) / max(hp.teacher_forcing_decay_steps, 1)
    first, last = hp.teacher_forcing_start_ratio, hp.teacher_forcing_end_ratio
    return first + (last - first) * min(max(passed, 0.0), 1.0)


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
    passed_over: list[tuple[tuple[int, int], tuple[int, int]]] = field(default_factory=list)  # data, see `pass_over`

    @property
    def position(self) -> tuple[int, int]:
        """Epoch, and batch in it, that comes next."""
        return self.epoch, self.batch_in_epoch

    def pass_over(self) -> bool:
        """Moves on if the next batch is in a stretch of data that a rollback left out. -> whether it was

        A stretch is [first position, end position), positions compare as tuples.
        """
        ends = [end for first, end in self.passed_over if tuple(first) <= self.position < tuple(end)]
        if ends:
            self.epoch, self.batch_in_epoch = max(ends)
        return bool(ends)

    def judge(self, score: float, alignment: float, hp: HParams) -> bool:
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
