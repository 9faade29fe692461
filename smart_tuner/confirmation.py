"""Whether the best trial is better than the settings as they were by more than luck: both are trained with other seeds.

A trial is one seed, and the best of many is in part the luckiest. So the best and the first trial (the settings as they
were) are trained anew with the same few other seeds. Better is what is better with every seed: of six values in random
order the three of the best come first once in twenty times. Else it is a tie, and the settings stay as they were. The
study's attribute `confirmation` holds the values, so an interrupted confirmation goes on.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from common.errors import UserError
from common.files import explain_write_errors
from common.log import LOG
from common.translations import messages
from smart_tuner import study as studies
from smart_tuner import time_plan
from smart_tuner.monitors.study_report import confirmation_said
from smart_tuner.objective import Ending, Records, score_trial
from smart_tuner.plan import Plan
from smart_tuner.settings import SearchOptions
from smart_tuner.slots import environment
from smart_tuner.storage import retry_storage
from smart_tuner.trainer_wrapper import TrainerWrapper, TrialOutcome
from smart_tuner.trial_queue import origin_of
from smart_tuner.trials import BUDGET_ATTRIBUTE, MAKE_ROOM, drop_weights
from training.trainer import StopRequest


@dataclass(frozen=True)
class Training:
    """One that confirms: a trial's values with another seed."""

    trial: FrozenTrial
    seed: int

    @property
    def name(self) -> str:
        return f"confirm_{origin_of(self.trial):05d}_seed_{self.seed}"


class Confirmation:
    """Trains what is lacking, `n_jobs` at a time, and says what came out."""

    def __init__(self, study: optuna.Study, plan: Plan, search: SearchOptions, stop: StopRequest) -> None:
        self.study, self.search, self.stop = study, search, stop
        # as long as the trials were: a launch that finds all of them finished has planned nothing
        budget = self._patiently(lambda: study.user_attrs.get(BUDGET_ATTRIBUTE, {}))
        self.plan = replace(plan, budget=time_plan.from_attribute(budget, plan.budget))

    def run(self) -> None:
        best = self._patiently(lambda: studies.lowest_trial(self.study))
        first = self._patiently(lambda: studies.first_of(self.study))
        if best is None or first is None or best.number == first.number:
            LOG.info("nothing to confirm: no trial is better than the settings as they were")
            return
        seeds = [self.plan.settings.hparams.seed + n for n in range(1, self.search.confirm + 1)]
        trainings = [Training(trial, seed) for seed in seeds for trial in (best, first)]
        lacking = [training for training in trainings if training.name not in self._values()]
        LOG.info("confirming trial_%05d beside the settings as they were: %d trainings", origin_of(best), len(lacking))
        with explain_write_errors(f"to {self.plan.directory}", next_step=MAKE_ROOM):
            for start in range(0, len(lacking), self.search.n_jobs):
                self._train(lacking[start : start + self.search.n_jobs])
        values = self._values()
        if any(training.name not in values for training in trainings):
            LOG.warning("time is up before the best is confirmed; the same command goes on with it")
            return
        of_best, of_first = ([values[t.name] for t in trainings if t.trial is trial] for trial in (best, first))
        self._keep({"best": origin_of(best), "of_best": of_best, "of_first": of_first})
        LOG.info("%s", confirmation_said(self._known(), messages("search", "en")))

    def _train(self, some: Sequence[Training]) -> None:
        """At the same time; what ends is kept at once, and only then its weights go."""
        with ThreadPoolExecutor(len(some)) as pool:
            for training, value in zip(some, pool.map(self._value, some, range(len(some))), strict=True):
                if value is not None:
                    self._keep({"values": {**self._values(), training.name: value}})
                    drop_weights(self.plan.directory / training.name / "checkpoints")

    def _patiently(self, action: Callable[[], Any]) -> Any:
        return retry_storage(action, time.sleep, is_ending=self._is_ending)

    def _known(self) -> Mapping[str, Any]:
        return self._patiently(lambda: self.study.user_attrs.get(studies.CONFIRMATION, {}))

    def _values(self) -> Mapping[str, float]:
        return self._known().get("values", {})

    def _keep(self, found: Mapping[str, Any]) -> None:
        kept = {**self._known(), **found}
        self._patiently(lambda: self.study.set_user_attr(studies.CONFIRMATION, kept))

    def _is_ending(self) -> bool:
        return self.stop.signal is not None or time.monotonic() >= self.search.ends_at

    def _value(self, training: Training, slot: int) -> float | None:
        """None if it was interrupted."""
        if self._is_ending():
            return None
        outcome = self._outcome(training, slot)
        if outcome.ending == "interrupted":
            return None
        result = score_trial(outcome.records, outcome.ending, outcome.misheard)
        said = outcome.error if result.is_failed else f"value={result.value:.4f}"
        LOG.info("%s %s: %s", training.name, outcome.ending, said)
        return result.value

    def _outcome(self, training: Training, slot: int) -> TrialOutcome:
        def watch(_: Records) -> Ending | None:
            return "interrupted" if self._is_ending() else None

        directory: Path = self.plan.directory / training.name
        try:
            command = self.plan.command(directory, training.trial.params, seed=training.seed)
        except UserError as error:
            return TrialOutcome("died", error.exit_code, [], str(error))
        shared = environment(slot, n_jobs=self.search.n_jobs, each=self.plan.gpus_per_trial)
        outcome = TrainerWrapper(command, directory, environment=shared, ends_at=self.search.ends_at).run(watch)
        listener = self.plan.listener
        return outcome if listener is None else listener.hear(outcome, directory, is_ending=self._is_ending)
