"""The trials of this machine, so many at a time: asked for, run, followed, told."""

import logging
import math
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from rich.table import Table

from common.errors import UserError
from common.log import LOG
from smart_tuner import study as studies
from smart_tuner import time_plan
from smart_tuner.monitors.live_table import TrialProgress, trials_table
from smart_tuner.monitors.news import StudyNews
from smart_tuner.objective import (
    LAST_RUNG_REACHED,
    Budget,
    Ending,
    Records,
    TrialResult,
    is_diverged,
    pruning_score,
    score_trial,
    validations,
)
from smart_tuner.plan import Plan
from smart_tuner.search_space import acts
from smart_tuner.settings import SearchOptions
from smart_tuner.storage import experimental_parts
from smart_tuner.trainer_wrapper import TrialOutcome
from smart_tuner.trial_queue import Nothing, TrialQueue, origin_of
from smart_tuner.trial_words import LISTENING_S
from smart_tuner.worker import LOOK_FOR_WORK_S, TrialHeartbeat, Worker
from tools import format_overrides
from training.trainer import StopRequest

BUDGET_ATTRIBUTE = "budget"  # of the study


class Search(Worker[optuna.Trial]):
    """Runs the trials that a study still lacks, so many at a time. ends_at: of time.monotonic(), when time is up."""

    def __init__(
        self,
        study: optuna.Study,
        storage: RDBStorage,
        plan: Plan,
        search: SearchOptions,
        stop: StopRequest,
        *,
        news: StudyNews,
        ends_at: float = math.inf,
    ) -> None:
        super().__init__(storage, plan, search, stop, ends_at=ends_at)
        self.study, self.news = study, news
        self.queue = TrialQueue(study, storage, n_trials=search.n_trials, worker=self.worker)

    def _queues(self) -> list[TrialQueue]:
        return [self.queue]

    def _take(self) -> optuna.Trial | Nothing:
        """Its parameters drawn."""
        taken = self.queue.take()
        if isinstance(taken, optuna.Trial):
            with experimental_parts():
                suggest(taken, self.plan)
        return taken

    def _table(self) -> Table:
        return trials_table(self.study, dict(self.watched), self.search.n_trials)

    def _run(self, trial: optuna.Trial, slot: int) -> None:
        number = origin_of(trial)
        directory = self.plan.trial_directory(number)
        LOG.info("%s: %s", directory.name, format_overrides(trial.params))
        self.watched[number] = watched = TrialProgress(self.plan.budget.epochs)
        try:
            outcome = self._decide_budget(trial, slot) or self._trained(trial, watched, slot)
            with self._lock:
                self._patiently(partial(self._tell, trial, outcome))
        except optuna.exceptions.UpdateFinishedTrialError:  # it stood still for minutes
            LOG.warning("%s: another machine took it for lost; its result is not used", directory.name)
        del self.watched[number]
        self._drop_checkpoints()

    def _trained(self, trial: optuna.Trial, watched: TrialProgress, slot: int) -> TrialOutcome:
        watched.epochs = self.plan.budget.epochs
        directory = self.plan.trial_directory(origin_of(trial))
        command = partial(self.plan.command, directory, trial.params)
        return self._outcome(trial, command, directory, slot, self._watch(trial, watched))

    # -- how long trials are ------------------------------------------------------------------------------------------

    def _decide_budget(self, trial: optuna.Trial, slot: int) -> TrialOutcome | None:
        """Before the first trial of the study: what all of them get. The others wait for it. -> how the trial ended,
        where that came first.
        """
        heartbeat = TrialHeartbeat(self.storage, trial)
        while (saved := self._patiently(lambda: self.study.user_attrs.get(BUDGET_ATTRIBUTE))) is None:
            heartbeat.beat()
            if self._is_ending():
                return TrialOutcome("interrupted", 0, [])
            if self._patiently(partial(self.queue.is_first, trial)):
                return self._measure(trial, slot, heartbeat)
            time.sleep(LOOK_FOR_WORK_S)
            self._patiently(self.queue.put_back_lost)
        self._use(time_plan.from_attribute(saved, self.plan.budget))
        return None

    def _measure(self, trial: optuna.Trial, slot: int, heartbeat: TrialHeartbeat) -> TrialOutcome | None:
        budget = self.plan.budget
        if math.isfinite(self.ends_at) and self.plan.may_shrink and not studies.finished(self.study):
            began, left_s = time.time(), self.ends_at - time.monotonic()

            def watch(records: Records) -> Ending | None:
                heartbeat.beat()
                if self._is_ending():
                    return "interrupted"
                is_late = time.time() - began > time_plan.PROBE_SHARE * left_s
                return "finished" if is_late and time_plan.speed_of(records, began=began) else None

            directory = self.plan.trial_directory(origin_of(trial))
            try:
                command = self.plan.command(directory, trial.params, own=time_plan.PROBE)
            except UserError:
                return None  # said where the trial itself is run
            outcome = self._wrapper(command, directory, slot).run(watch)
            speed = time_plan.speed_of(outcome.records, began=began)
            if outcome.ending != "finished" or speed is None:
                return outcome
            budget = self._fit(speed, trial)
        self._patiently(lambda: self.study.set_user_attr(BUDGET_ATTRIBUTE, time_plan.as_attribute(budget)))
        self._use(budget)
        return None

    def _fit(self, speed: time_plan.Speed, trial: optuna.Trial) -> Budget:
        budget, left_s = self.plan.budget, self.ends_at - time.monotonic()
        n_trials = self.search.n_trials + 2 * self.search.confirm
        if self.plan.listener is not None:
            speed = replace(speed, startup_s=speed.startup_s + LISTENING_S)
        steps = self.plan.steps_per_epoch(trial.params)
        n_jobs = min(self.search.n_jobs, n_trials)
        fitted = time_plan.fit(
            budget, speed, steps_per_epoch=steps, n_trials=n_trials, n_jobs=n_jobs, left_s=max(1.0, left_s),
            base_voice_s=self.search.base_voice_s,
        )  # fmt: skip
        LOG.info("%s", time_plan.say(fitted, budget, speed, n_trials=n_trials, left_s=left_s))
        return fitted.budget

    def _use(self, budget: Budget) -> None:
        self.plan = replace(self.plan, budget=budget)
        self.study.pruner = studies.pruner(warmup_validations=budget.warmup_validations)

    # -- one trial ----------------------------------------------------------------------------------------------------

    def _watch(self, trial: optuna.Trial, watched: TrialProgress) -> Callable[[Records], Ending | None]:
        reported: set[int] = set()
        known: Records | None = None
        heartbeat = TrialHeartbeat(self.storage, trial)

        def watch(records: Records) -> Ending | None:
            nonlocal known
            heartbeat.beat()
            if self._is_ending():
                return "interrupted"
            if records is known:  # a look costs nothing where nothing has come
                return None
            known = records
            watched.update(records)
            rungs = {self.plan.budget.rung(record["epoch"]): record for record in validations(records)}
            new = {rung: record for rung, record in rungs.items() if rung not in reported}
            reported.update(new)
            for rung, record in new.items():
                self._patiently(partial(trial.report, pruning_score(record), rung))
            if is_diverged(records):
                return "diverged"
            at_the_end = watched.epoch >= LAST_RUNG_REACHED * self.plan.budget.epochs
            return "pruned" if new and not at_the_end and self._patiently(trial.should_prune) else None

        return watch

    def _tell(self, trial: optuna.Trial, outcome: TrialOutcome) -> None:
        """The outcome to the study. An interrupted trial is put into the queue again."""
        if outcome.ending == "interrupted":
            self.queue.interrupt(trial)
            return
        result = score_trial(outcome.records, outcome.ending, outcome.misheard)
        frozen = self.study.get_trials(deepcopy=False)[trial.number]
        describe(trial, result, outcome, told=frozen.constraints)
        name = self.plan.trial_directory(origin_of(trial)).name
        if outcome.ending == "pruned":
            self.study.tell(trial, state=TrialState.PRUNED)
        else:
            self.study.tell(trial, result.value)
        self.news.trial_ended(trial, result, outcome)
        said = outcome.error if result.is_failed else f"value={result.value:.4f} at epoch {result.epoch:.1f}"
        LOG.log(logging.WARNING if result.is_failed else logging.INFO, "%s %s: %s", name, outcome.ending, said)

    def _drop_checkpoints(self) -> None:
        """Only the best trial keeps its weights; records, pictures and sounds stay everywhere."""
        with self._lock:
            best = self._patiently(lambda: studies.best_trial(self.study))
            for trial in self._patiently(lambda: studies.finished(self.study)):
                if best is None or origin_of(trial) != origin_of(best):
                    drop_weights(self.plan.trial_directory(origin_of(trial)) / "checkpoints")


def drop_weights(directory: Path) -> None:
    if directory.exists():
        shutil.rmtree(directory)


def suggest(trial: optuna.Trial, plan: Plan) -> None:
    """Draws what acts; what is not searched acts with its value in the settings."""
    values = plan.settings.hparams.canonical()
    for name, searched in plan.space.ranges.items():
        if acts(name, values):
            values[name] = draw(trial, name, studies.distribution(searched))


def draw(trial: optuna.Trial, name: str, distribution: optuna.distributions.BaseDistribution) -> Any:
    if isinstance(distribution, optuna.distributions.CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    if isinstance(distribution, optuna.distributions.IntDistribution):
        return trial.suggest_int(name, distribution.low, distribution.high)
    assert isinstance(distribution, optuna.distributions.FloatDistribution)
    return trial.suggest_float(name, distribution.low, distribution.high, log=distribution.log)


def describe(trial: optuna.Trial, result: TrialResult, outcome: TrialOutcome, *, told: Mapping[str, float]) -> None:
    """Everything about the trial that its value doesn't say, so that a table can be made of the database alone."""
    facts: dict[str, Any] = {"ending": outcome.ending, "failed": result.is_failed, "exit_code": outcome.exit_code}
    facts |= {"epoch": result.epoch, "step": result.step, **result.parts}
    if outcome.error:
        facts["error"] = outcome.error
    for name, value in facts.items():
        trial.set_user_attr(name, value)
    for name, value in result.constraints.items():
        if name not in told:  # by an attempt that the database cut short
            trial.set_constraint(name, value)
