"""How long trials may be, so that as many as asked for fit into the time given: from the first one's measured speed.

The budget is decided once for the whole study, as values of trials compare only at equal budgets: the study's
attribute `budget` holds it for all machines and later launches.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from common.durations import duration
from smart_tuner.objective import LEAST_RUNGS, Budget, Records, TrialPlan, validations

ATTRIBUTE = "budget"  # of the study
PROBE = TrialPlan(epochs=1_000_000, max_steps=20, validate_interval=10)  # a record each ten steps
PROBE_SHARE = 0.05  # of the time left, after which the first ten steps must do
SPENT_SHARE = 0.85  # of the time left is planned: other batch sizes take longer
MOST_VALIDATING = 0.5  # of a trial's time
LEAST_STEPS = 10


@dataclass(frozen=True)
class Speed:
    """Of the first trial: seconds until the first step, of a step, of a validation with its pictures and sounds."""

    startup_s: float
    step_s: float
    validation_s: float

    def trial_s(self, *, steps: float, n_validations: float) -> float:
        return self.startup_s + steps * self.step_s + n_validations * self.validation_s


def speed_of(records: Records, *, began: float) -> Speed | None:
    """From what a first trial has recorded since `began` (seconds since the epoch). None: no step or validation yet."""
    steps, judged = [record for record in records if record["type"] == "step"], validations(records)
    if not steps or not judged:
        return None
    first, first_s, last_s = steps[0], float(steps[0]["step_s"]), float(steps[-1]["step_s"])
    step_s = min(first_s, last_s)
    startup_s = max(0.0, first["time"] - began - first["step"] * step_s)
    # on one core the pictures and sounds of a validation slow the steps after it, here all, in a trial a few
    pictures_s = (last_s - step_s) * PROBE.validate_interval
    return Speed(startup_s, step_s, pictures_s + max(float(record["duration_s"]) for record in judged))


@dataclass(frozen=True)
class TimePlan:
    """What each trial gets. is_enough: whether all trials fit into the time."""

    budget: Budget
    trial_s: float
    n_fitting: int


def fit(
    budget: Budget,
    speed: Speed,
    *,
    steps_per_epoch: int,
    n_trials: int,
    n_jobs: int,
    left_s: float,
    base_voice_s: float = 0.0,
) -> TimePlan:
    """The budget, or as much of it as fits `n_trials` times, `n_jobs` at a time, into `left_s` seconds.

    What a base voice took beside them counts as if it were left: the study keeps its budget, and a later launch has
    the base voice.
    """
    each_s = SPENT_SHARE * (left_s + base_voice_s) * n_jobs / n_trials
    whole_s = speed.trial_s(
        steps=budget.epochs * steps_per_epoch, n_validations=math.ceil(budget.epochs / budget.rung_epochs)
    )
    fitted, trial_s = budget, whole_s
    if whole_s > each_s:
        working_s = each_s - speed.startup_s
        n_rungs = min(LEAST_RUNGS, max(1, int(MOST_VALIDATING * working_s / speed.validation_s)))
        steps = max(LEAST_STEPS, int((working_s - n_rungs * speed.validation_s) / speed.step_s))
        fitted = shrunk(budget, epochs=steps / steps_per_epoch, n_rungs=n_rungs)
        trial_s = speed.trial_s(steps=steps, n_validations=n_rungs)
    return TimePlan(fitted, trial_s, min(n_trials, int(left_s * n_jobs / trial_s)))


def shrunk(budget: Budget, *, epochs: float, n_rungs: int) -> Budget:
    return Budget(epochs, budget.warm_epochs * epochs / budget.epochs, epochs / n_rungs)


def say(
    plan: TimePlan, budget: Budget, speed: Speed, *, n_trials: int, left_s: float, n_confirming: int = 0
) -> str:  # fmt: skip
    """What a person should know before the first trial goes on. n_confirming: of the `n_trials` that are planned."""
    confirming = f" and {n_confirming} trainings that confirm the best" if n_confirming else ""
    measured = (
        f"measured: {speed.startup_s:.0f} s to start a trial, {speed.step_s:.2f} s a step, {speed.validation_s:.1f} s "
        f"a validation; {duration(left_s)} left for {n_trials - n_confirming} trials{confirming}"
    )
    each = f"each gets {plan.budget.epochs:.3g} of {budget.epochs:.3g} epochs and takes about {duration(plan.trial_s)}"
    if plan.budget == budget:
        each = f"each gets all its {budget.epochs:.3g} epochs and takes about {duration(plan.trial_s)}"
    if plan.n_fitting < n_trials:
        each += f"; about {plan.n_fitting} fit, the same command goes on with the others"
    return f"{measured}; {each}"


def as_attribute(budget: Budget) -> dict[str, float]:
    return dict(vars(budget))


def from_attribute(saved: Mapping[str, Any], budget: Budget) -> Budget:
    return replace(budget, **{name: float(value) for name, value in saved.items()})
