"""Whether the best trial is better than the settings as they were by more than luck: both are trained with other seeds.

A trial is one seed, and the best of many is in part the luckiest. So the best and the first trial (the settings as they
were) are trained anew with the same few other seeds. Better is what is better with every seed: of four values in random
order the two of the best come first once in six times, of six the three once in twenty times. Else it is a tie, and the
settings stay as they were.

Each of these trainings is the only trial of a study of its own, beside the search in its database. So an interrupted
one is gone on with, and several machines share the work. What came out is the search's attribute `confirmation`.
"""

from dataclasses import dataclass, replace
from functools import partial

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
from smart_tuner.objective import is_diverged
from smart_tuner.plan import Plan
from smart_tuner.settings import SearchOptions
from smart_tuner.trainer_wrapper import TrialOutcome
from smart_tuner.trial_queue import DONE, Nothing, TrialQueue, origin_of, trial_name
from smart_tuner.trials import tell
from smart_tuner.worker import Worker, drop_weights, worker_name
from training.trainer import StopRequest


@dataclass(frozen=True)
class Training:
    """A trial's values with another seed. queue: of the one trial that it is. name: of its run."""

    trial: FrozenTrial
    seed: int
    queue: TrialQueue

    @property
    def name(self) -> str:
        return f"confirm_{origin_of(self.trial):05d}_seed_{self.seed}"

    def value(self) -> float | None:
        """None before it has ended."""
        return next((one.value for one in self.queue.study.get_trials(deepcopy=False, states=DONE)), None)


@dataclass(frozen=True)
class Taken:
    """A training that runs here, as this trial."""

    training: Training
    trial: optuna.Trial


class Confirmation(Worker[Taken]):
    """Trains what is lacking, `n_jobs` at a time, and says what came out."""

    def __init__(
        self, study: optuna.Study, storage: RDBStorage, plan: Plan, search: SearchOptions, stop: StopRequest
    ) -> None:
        search = replace(search, n_jobs=min(search.n_jobs, 2 * search.confirm))  # others would have nothing to do
        super().__init__(storage, plan, search, stop)
        self.study, self.trainings = study, list[Training]()
        self._done = set[str]()  # not asked for again
        # as long as the trials were: a launch that finds all of them finished has planned nothing
        budget = self._patiently(lambda: study.user_attrs.get(time_plan.ATTRIBUTE, {}))
        self.plan = replace(plan, budget=time_plan.from_attribute(budget, plan.budget))

    def run(self) -> None:
        best = self._patiently(lambda: studies.lowest_trial(self.study))
        first = self._patiently(lambda: studies.first_of(self.study))
        if best is None or first is None:
            LOG.warning("nothing to confirm: the trial with the settings as they were has failed or was pruned")
        elif best.number == first.number:
            LOG.info("nothing to confirm: no trial is better than the settings as they were")
        elif not self._patiently(self._is_known):
            self._confirm(best, first)
        known = self._patiently(lambda: studies.confirmation_of(self.study))
        if known is not None and self._patiently(self._is_known):
            for run in self.plan.directory.glob("confirm_*"):  # perhaps gone on with on another machine
                drop_weights(run)
            LOG.info("%s", confirmation_said(known, messages("search", "en")))

    def _is_known(self) -> bool:
        return not studies.is_open(self.study, n_seeds=self.search.confirm)

    def _confirm(self, best: FrozenTrial, first: FrozenTrial) -> None:
        seeds = [(self.plan.settings.hparams.seed + n) % 2**32 for n in range(1, self.search.confirm + 1)]
        pairs = [(trial, seed) for seed in seeds for trial in (best, first)]
        self.trainings = [self._patiently(partial(self._training, *pair)) for pair in pairs]
        n_lacking = len(self.trainings) - self._patiently(self._n_done)
        LOG.info("confirming %s beside the settings as they were: %d trainings", trial_name(origin_of(best)), n_lacking)
        self.run_all()
        if self._patiently(self._n_done) < len(self.trainings):
            return
        of_best, of_first = (
            [self._patiently(one.value) for one in self.trainings if one.trial is trial] for trial in (best, first)
        )
        found = {"best": origin_of(best), "of_best": of_best, "of_first": of_first}
        if not self._patiently(self._is_known):  # another machine may have been asked for more seeds
            self._patiently(lambda: self.study.set_user_attr(studies.CONFIRMATION, found))

    def _training(self, trial: FrozenTrial, seed: int) -> Training:
        """The search's own number in the name, as its name may be that of a deleted one."""
        search = f"{self.study.study_name} ({self.study._study_id})"
        name = f"{search}, {trial_name(origin_of(trial))} with seed {seed}"
        study = optuna.create_study(storage=self.storage, study_name=name, load_if_exists=True)
        worker = worker_name(self.plan.directory)
        return Training(trial, seed, TrialQueue(study, self.storage, n_trials=1, worker=worker))

    def _n_done(self) -> int:
        return sum(one.value() is not None for one in self.trainings)

    def _queues(self) -> list[TrialQueue]:
        return [one.queue for one in self.trainings]

    def _table(self) -> Table:
        return trainings_table(dict(self.watched), n_done=self._n_done(), n=len(self.trainings))

    def _take(self) -> Taken | Nothing:
        for one in [one for one in self.trainings if one.name not in self._done]:
            taken = one.queue.take()
            if isinstance(taken, optuna.Trial):
                return Taken(one, taken)
            if taken == "done":
                self._done.add(one.name)
        return "done" if len(self._done) == len(self.trainings) else "wait"

    def _key(self, taken: Taken) -> str:
        return taken.training.name

    def _train(self, taken: Taken, watched: TrialProgress, slot: int) -> TrialOutcome:
        directory = self.plan.directory / taken.training.name
        command = partial(self.plan.command, directory, taken.training.trial.params, seed=taken.training.seed)
        watch = self._following(taken.trial, watched, lambda records: "diverged" if is_diverged(records) else None)
        return self._outcome(taken.trial, command, directory, slot, watch)

    def _tell(self, taken: Taken, outcome: TrialOutcome) -> None:
        tell(taken.training.queue, taken.trial, outcome, name=taken.training.name)

    def _drop_weights(self) -> None:
        for one in self.trainings:
            if one.value() is not None:
                drop_weights(self.plan.directory / one.name)
