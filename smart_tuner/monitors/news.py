"""What a search tells whoever watches it: records of the same kind as a run's, through the same queues."""

import math
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from common.redaction import argument_without_secrets, without_secrets
from monitoring.observer import Observer, RunInfo, close_all
from run_directory.records import Event
from smart_tuner.objective import TrialResult
from smart_tuner.plan import Plan
from smart_tuner.study import best_trial, finished
from smart_tuner.trainer_wrapper import TrialOutcome
from smart_tuner.trial_queue import origin_of

TRIAL, END = "trial", "ended"  # kinds of events


@dataclass(frozen=True)
class TrialNews:
    """A trial that ended: what an `Event` of kind `trial` holds as its data."""

    number: int
    ending: str
    value: float
    is_failed: bool
    is_best: bool
    done: int
    params: Mapping[str, Any]
    parts: Mapping[str, float]
    directory: str


class StudyNews:
    """Tells the observers of a search."""

    def __init__(self, study: optuna.Study, plan: Plan, observers: Sequence[Observer], *, n_trials: int) -> None:
        self.study, self.plan, self.observers, self.n_trials = study, plan, observers, n_trials
        self._began = time.monotonic()

    def start(self) -> None:
        done, hp = len(finished(self.study)), self.plan.settings.hparams
        command = shlex.join([Path(sys.argv[0]).name, *map(argument_without_secrets, sys.argv[1:])])
        run = RunInfo(self.plan.directory, self.plan.logs, hp.canonical(), self.n_trials, done, command)
        for observer in self.observers:
            observer.on_start(run)

    def trial_ended(self, trial: optuna.Trial, result: TrialResult, outcome: TrialOutcome) -> None:
        best, number = best_trial(self.study), origin_of(trial)
        news = TrialNews(
            number,
            outcome.ending,
            result.value,
            result.is_failed,
            best is not None and best.number == trial.number,
            len(finished(self.study)),
            trial.params,
            result.parts,
            str(self.plan.trial_directory(number)),
        )
        self._emit(Event(news.done, TRIAL, outcome.ending, vars(news)))

    def end(self, reason: str, error: str = "") -> None:
        """reason: `done`, `time`, `signal` or `error`."""
        best = best_trial(self.study)
        facts = {"error": without_secrets(error), "seconds": time.monotonic() - self._began, "best": _facts_of(best)}
        self._emit(Event(len(finished(self.study)), END, reason, facts))

    def close(self, *, until: float = math.inf) -> None:
        close_all(self.observers, until=until)

    def _emit(self, event: Event) -> None:
        for observer in self.observers:
            observer.on_record(event)


def _facts_of(best: FrozenTrial | None) -> dict[str, Any] | None:
    return None if best is None else {"number": origin_of(best), "value": best.value, "params": best.params}
