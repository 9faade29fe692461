"""How a trial is judged, from its records alone: pure functions, the same for every trial of a study.

A trial's value is that of its best validation; lower is better:

    composite_score + 0.1 min(5, validation mel loss) + penalty for dead attention
      + share of the characters that a recognizer mishears in its last checkpoint        with --score-words

`metrics.composite_score` is free-running: mel distance, alignment, stop, duration, with the trial's gate threshold.
No loss weight enters, so that a search can't win by weighing less. Training is measured in utterances seen, not in
steps, as the batch size is searched too; in epochs of the corpus, since that is how records count.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from smart_tuner.search_space import Range
from speech.metrics import ALIGNMENT_WEIGHT, WORST_COMPOSITE, composite_score

Ending = Literal["finished", "pruned", "interrupted", "diverged", "stalled", "died", "lost"]
Records = Sequence[Mapping[str, Any]]

MEL_LOSS_WEIGHT = 0.1  # good and bad settings are 0.1 to 0.5 log-mel^2 apart: a tie-breaker beside the rest
WORST_MEL_LOSS = 5.0  # log-mel^2; an untrained model has about that
DEAD_ALIGNMENT = 0.1  # metrics.alignment_score of attention that never formed is under it
DEAD_PENALTY = 1.0  # at alignment 0; falls to nothing at DEAD_ALIGNMENT, so that half dead beats dead
MISHEARD_WEIGHT = 1.0  # of the characters: voices that are understood differ by hundredths, as in mel distance
# also of a trial that failed
WORST_VALUE = WORST_COMPOSITE + MEL_LOSS_WEIGHT * WORST_MEL_LOSS + DEAD_PENALTY + MISHEARD_WEIGHT
DIVERGED_RECORDS = 3  # so many records of ten steps in a row without one finite gradient
WARM_SHARE = 1 / 3  # of the budget, where no range says what no trial is pruned before
LEAST_RUNGS = 5  # validations of a trial, at least
LAST_RUNG_REACHED = 0.98  # of the budget: batches are not all full


@dataclass(frozen=True)
class Budget:
    """What every trial of a study may see, in epochs: all of it, what none is pruned before, and from validation to
    validation (a rung).
    """

    epochs: float
    warm_epochs: float
    rung_epochs: float

    def rung(self, epoch: float) -> int:
        return round(epoch / self.rung_epochs)

    @property
    def warmup_validations(self) -> int:
        return math.ceil(self.warm_epochs / self.rung_epochs)


def budget_of(
    searched: Range | None,
    *,
    epochs: int,
    validate_interval: int,
    steps_per_epoch: int,
    max_steps: int | None,
) -> Budget:
    """searched: the range of epochs; its high end is the budget, its low end what no trial is pruned before. Without
    it `epochs` is the budget. validate_interval, max_steps: in steps of the settings' own batch size (steps_per_epoch),
    whatever a trial's is. A smaller max_steps shrinks all of it.
    """
    whole = float(searched.high) if searched else float(epochs)
    warm_share = searched.low / searched.high if searched else WARM_SHARE
    if max_steps is not None:
        whole = min(whole, max_steps / steps_per_epoch)
    rung_steps = min(validate_interval, max(1.0, whole * steps_per_epoch / LEAST_RUNGS))
    return Budget(whole, whole * warm_share, rung_steps / steps_per_epoch)


@dataclass(frozen=True)
class TrialPlan:
    """One trial's share of a budget, in its own steps."""

    epochs: int
    max_steps: int
    validate_interval: int


def plan_of(budget: Budget, *, steps_per_epoch: int) -> TrialPlan:
    """The steps after which a trial with this many an epoch has seen what the budget allows, and when it is judged."""
    return TrialPlan(
        epochs=math.ceil(budget.epochs),
        max_steps=max(1, round(budget.epochs * steps_per_epoch)),
        validate_interval=max(1, round(budget.rung_epochs * steps_per_epoch)),
    )


def value_of(record: Mapping[str, Any]) -> float:
    """The value of one validation, finite for every record."""
    return composite_score(record["free_running"]) + MEL_LOSS_WEIGHT * _mel_loss(record) + _dead_penalty(record)


def _mel_loss(record: Mapping[str, Any]) -> float:
    loss = record["losses"].get("mel_post", math.nan)
    return min(loss, WORST_MEL_LOSS) if math.isfinite(loss) else WORST_MEL_LOSS


def _dead_penalty(record: Mapping[str, Any]) -> float:
    alignment = record["free_running"]["alignment"]
    return DEAD_PENALTY * max(0.0, 1 - alignment / DEAD_ALIGNMENT) if math.isfinite(alignment) else DEAD_PENALTY


def pruning_score(record: Mapping[str, Any]) -> float:
    """What trials are compared by while they train: free-running mel distance and alignment. Lower is better."""
    free = record["free_running"]
    score = free["mel_distance"] + ALIGNMENT_WEIGHT * (1 - free["alignment"])
    return score if math.isfinite(score) else WORST_VALUE


def validations(records: Records) -> list[Mapping[str, Any]]:
    return [record for record in records if record["type"] == "eval" and record["free_running"]]


def is_diverged(records: Records) -> bool:
    """Whether no gradient of the latest steps was finite: nothing is learnt any more."""
    latest = [record for record in records if record["type"] == "step"][-DIVERGED_RECORDS:]
    return len(latest) == DIVERGED_RECORDS and not any(_has_learnt(record) for record in latest)


def _has_learnt(record: Mapping[str, Any]) -> bool:
    return math.isfinite(record["losses"].get("total", math.nan))


@dataclass(frozen=True)
class TrialResult:
    """What the study is told of a trial. constraints: over 0 is violated. parts: of the best validation, by name."""

    value: float
    is_failed: bool
    constraints: Mapping[str, float]
    parts: Mapping[str, float]
    step: int
    epoch: float


def score_trial(records: Records, ending: Ending, misheard: float | None = None) -> TrialResult:
    """A trial that ended so with these records, where so much of its speech was misheard (None: nobody has listened).

    One that failed gets the worst value, never none: samplers ignore what has no value, and would ask for the same
    again.
    """
    judged = validations(records)
    is_failed = ending in ("diverged", "stalled", "died", "lost") or not judged or is_diverged(records)
    if is_failed:
        return TrialResult(WORST_VALUE, True, {"failed": 1.0, "attention": DEAD_ALIGNMENT}, {}, 0, 0.0)
    best = min(judged, key=value_of)
    constraints = {"failed": -1.0, "attention": DEAD_ALIGNMENT - best["free_running"]["alignment"]}
    parts = {**best["free_running"], "validation_mel_loss": _mel_loss(best), "composite": best["score"]}
    heard = {} if misheard is None else {"misheard": misheard}
    value = value_of(best) + MISHEARD_WEIGHT * (misheard or 0.0)
    return TrialResult(value, False, constraints, parts | heard, best["step"], best["epoch"])
