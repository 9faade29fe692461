"""Whether the best trial is better than the settings as they were by more than luck: both are trained with other seeds.

A trial is one seed, and the best of many is in part the luckiest. So the best and the first trial (the settings as they
were) are trained anew with the same few other seeds. Better is what is better with every seed: of six values in random
order the three of the best come first once in twenty times. Else it is a tie, and the settings stay as they were.

The trainings of either are trials of a study of their own, beside the search in its database. So what an interrupted
confirmation lacks is gone on with, and several machines share the work. What came out is the search's attribute
`confirmation`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial
from rich.table import Table

from common.log import LOG
from common.translations import messages
from smart_tuner import study as studies
from smart_tuner import time_plan
from smart_tuner.monitors.live_table import TrialProgress, trainings_table
from smart_tuner.monitors.study_report import confirmation_said
from smart_tuner.objective import Ending, Records, score_trial
from smart_tuner.plan import Plan
from smart_tuner.settings import SearchOptions
from smart_tuner.trainer_wrapper import TrialOutcome
from smart_tuner.trial_queue import TrialQueue, counting, first_origins, origin_of
from smart_tuner.trials import BUDGET_ATTRIBUTE, drop_weights
from smart_tuner.worker import TrialHeartbeat, Worker
from training.trainer import StopRequest


@dataclass(frozen=True)
class Repeated:
    """A trial of the search, trained anew with other seeds: the n-th origin of its queue has the n-th of them."""

    trial: FrozenTrial
    queue: TrialQueue

    @property
    def values(self) -> list[float]:
        """Of the trainings that have ended, by seed."""
        counted = [counting(attempts) for attempts in first_origins(self.queue.study, self.queue.n_trials).values()]
        return [one.value for one in counted if one is not None and one.value is not None]

    @property
    def is_done(self) -> bool:
        return len(self.values) == self.queue.n_trials

    def nth(self, training: optuna.Trial) -> int:
        return list(first_origins(self.queue.study, self.queue.n_trials)).index(origin_of(training))


@dataclass(frozen=True)
class Training:
    """One that runs here. name: that of its run."""

    repeated: Repeated
    trial: optuna.Trial
    seed: int

    @property
    def name(self) -> str:
        return f"confirm_{origin_of(self.repeated.trial):05d}_seed_{self.seed}"


class Confirmation(Worker[Training]):
    """Trains what is lacking, `n_jobs` at a time, and says what came out."""

    def __init__(
        self, study: optuna.Study, storage: RDBStorage, plan: Plan, search: SearchOptions, stop: StopRequest
    ) -> None:
        super().__init__(storage, plan, search, stop, ends_at=search.ends_at)
        self.study = study
        # as long as the trials were: a launch that finds all of them finished has planned nothing
        budget = self._patiently(lambda: study.user_attrs.get(BUDGET_ATTRIBUTE, {}))
        self.plan = replace(plan, budget=time_plan.from_attribute(budget, plan.budget))
        self.both: list[Repeated] = []  # the best and the settings

    def run(self) -> None:
        best = self._patiently(lambda: studies.lowest_trial(self.study))
        first = self._patiently(lambda: studies.first_of(self.study))
        if best is None or first is None or best.number == first.number:
            LOG.info("nothing to confirm: no trial is better than the settings as they were")
            return
        self.both = [self._patiently(partial(self._repeated, trial)) for trial in (best, first)]
        LOG.info("confirming trial_%05d beside the settings as they were: %d trainings", origin_of(best),
                 2 * self.search.confirm - self._patiently(self._n_done))  # fmt: skip
        self.run_all()
        if not self._patiently(lambda: all(one.is_done for one in self.both)):
            LOG.warning("time is up before the best is confirmed; the same command goes on with it")
            return
        of_best, of_first = self._patiently(lambda: [one.values for one in self.both])
        found = {"best": origin_of(best), "of_best": of_best, "of_first": of_first}
        self._patiently(lambda: self.study.set_user_attr(studies.CONFIRMATION, found))
        LOG.info("%s", confirmation_said(found, messages("search", "en")))

    def _repeated(self, trial: FrozenTrial) -> Repeated:
        name = f"{self.study.study_name}, trial {origin_of(trial)} anew"
        study = optuna.create_study(storage=self.storage, study_name=name, load_if_exists=True)
        return Repeated(trial, TrialQueue(study, self.storage, n_trials=self.search.confirm, worker=self.worker))

    def _queues(self) -> list[TrialQueue]:
        return [one.queue for one in self.both]

    def _n_done(self) -> int:
        return sum(len(one.values) for one in self.both)

    def _table(self) -> Table:
        return trainings_table(dict(self.watched), n_done=self._n_done(), n=2 * self.search.confirm)

    def _take(self) -> Training | Literal["wait", "done"]:
        answers = set[Literal["wait", "done"]]()
        for one in self.both:
            taken = one.queue.take()
            if isinstance(taken, optuna.Trial):
                return Training(one, taken, self.plan.settings.hparams.seed + 1 + one.nth(taken))
            answers.add(taken)
        return "wait" if "wait" in answers else "done"

    def _run(self, taken: Training, slot: int) -> None:
        directory = self.plan.directory / taken.name
        self.watched[taken.name] = watched = TrialProgress(self.plan.budget.epochs)
        command = partial(self.plan.command, directory, taken.repeated.trial.params, seed=taken.seed)
        try:
            outcome = self._outcome(taken.trial, command, directory, slot, self._watch(taken, watched))
            with self._lock:
                self._patiently(partial(self._tell, taken, outcome))
        except optuna.exceptions.UpdateFinishedTrialError:  # it stood still for minutes
            LOG.warning("%s: another machine took it for lost; its result is not used", taken.name)
        del self.watched[taken.name]

    def _watch(self, taken: Training, watched: TrialProgress) -> Callable[[Records], Ending | None]:
        heartbeat = TrialHeartbeat(self.storage, taken.trial)

        def watch(records: Records) -> Ending | None:
            watched.update(records)
            return "interrupted" if self._beats_and_ends(heartbeat) else None

        return watch

    def _tell(self, taken: Training, outcome: TrialOutcome) -> None:
        """To the database; only then the weights go."""
        if outcome.ending == "interrupted":
            taken.repeated.queue.interrupt(taken.trial)
            return
        result = score_trial(outcome.records, outcome.ending, outcome.misheard)
        taken.trial.set_user_attr("ending", outcome.ending)
        taken.repeated.queue.study.tell(taken.trial, result.value)
        said = outcome.error if result.is_failed else f"value={result.value:.4f}"
        LOG.info("%s %s: %s", taken.name, outcome.ending, said)
        drop_weights(self.plan.directory / taken.name / "checkpoints")
