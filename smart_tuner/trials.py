"""The trials of this machine, so many at a time: asked for, run, followed, told."""

import logging
import math
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from rich.table import Table

from common.errors import UserError
from common.log import LOG
from smart_tuner import study as studies
from smart_tuner import time_plan
from smart_tuner import worker as workers
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
from smart_tuner.worker import TrialHeartbeat, Watch, Worker, drop_weights, worker_name
from tools import format_overrides
from training.trainer import StopRequest


class Search(Worker[optuna.Trial]):
    """Runs the trials that a study still lacks, so many at a time."""

    def __init__(
        self,
        study: optuna.Study,
        storage: RDBStorage,
        plan: Plan,
        search: SearchOptions,
        stop: StopRequest,
        *,
        news: StudyNews,
    ) -> None:
        super().__init__(storage, plan, search, stop)
        self.study, self.news = study, news
        self.queue = TrialQueue(study, storage, n_trials=search.n_trials, worker=worker_name(plan.directory))

    def _queues(self) -> list[TrialQueue]:
        return [self.queue]

    def _key(self, taken: optuna.Trial) -> str:
        return self.plan.trial_directory(origin_of(taken)).name

    def _take(self) -> optuna.Trial | Nothing:
        """Its parameters drawn."""
        taken = self.queue.take()
        if isinstance(taken, optuna.Trial):
            with experimental_parts():
                suggest(taken, self.plan)
        return taken

    def _table(self) -> Table:
        return trials_table(self.study, dict(self.watched), self.search.n_trials)

    def _train(self, taken: optuna.Trial, watched: TrialProgress, slot: int) -> TrialOutcome:
        directory = self.plan.trial_directory(origin_of(taken))
        LOG.info("%s: %s", directory.name, format_overrides(taken.params))
        if (ended := self._decide_budget(taken, slot)) is not None:
            return ended
        watched.epochs = self.plan.budget.epochs
        command = partial(self.plan.command, directory, taken.params)
        watch = self._following(taken, watched, self._judge(taken, watched))
        return self._outcome(taken, command, directory, slot, watch)

    # -- how long trials are ------------------------------------------------------------------------------------------

    def _decide_budget(self, trial: optuna.Trial, slot: int) -> TrialOutcome | None:
        """Before the first trial of the study: what all of them get. The others wait for it. -> how the trial ended,
        where that came first.
        """
        heartbeat = TrialHeartbeat(self.storage, trial)
        while (saved := self._patiently(lambda: self.study.user_attrs.get(time_plan.ATTRIBUTE))) is None:
            if self._beats_and_ends(heartbeat):
                return TrialOutcome("interrupted", 0, [])
            if self._patiently(partial(self.queue.is_first, trial)):
                return self._measure(trial, slot, heartbeat)
            self._pause(workers.LOOK_FOR_WORK_S)
            self._patiently(self.queue.put_back_lost)
        self._use(time_plan.from_attribute(saved, self.plan.budget))
        return None

    def _measure(self, trial: optuna.Trial, slot: int, heartbeat: TrialHeartbeat) -> TrialOutcome | None:
        budget = self.plan.budget
        if math.isfinite(self.search.ends_at) and self.plan.may_shrink and not studies.finished(self.study):
            began, left_s = time.time(), self.search.ends_at - time.monotonic()

            def watch(records: Records) -> Ending | None:
                if self._beats_and_ends(heartbeat):
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
        self._patiently(lambda: self.study.set_user_attr(time_plan.ATTRIBUTE, time_plan.as_attribute(budget)))
        self._use(budget)
        return None

    def _fit(self, speed: time_plan.Speed, trial: optuna.Trial) -> Budget:
        budget, left_s = self.plan.budget, self.search.ends_at - time.monotonic()
        n_trials = self.search.n_trials + 2 * self.search.confirm
        if self.plan.listener is not None:
            speed = replace(speed, startup_s=speed.startup_s + LISTENING_S)
        steps = self.plan.steps_per_epoch(trial.params)
        n_jobs = min(self.search.n_jobs, n_trials)
        fitted = time_plan.fit(
            budget, speed, steps_per_epoch=steps, n_trials=n_trials, n_jobs=n_jobs, left_s=max(1.0, left_s),
            base_voice_s=self.search.base_voice_s,
        )  # fmt: skip
        said = time_plan.say(
            fitted, budget, speed, n_trials=n_trials, n_confirming=2 * self.search.confirm, left_s=left_s
        )  # fmt: skip
        LOG.info("%s", said)
        return fitted.budget

    def _use(self, budget: Budget) -> None:
        self.plan = replace(self.plan, budget=budget)
        self.study.pruner = studies.pruner(warmup_validations=budget.warmup_validations)

    # -- one trial ----------------------------------------------------------------------------------------------------

    def _judge(self, trial: optuna.Trial, watched: TrialProgress) -> Watch:
        reported: set[int] = set()

        def judge(records: Records) -> Ending | None:
            rungs = {self.plan.budget.rung(record["epoch"]): record for record in validations(records)}
            new = {rung: record for rung, record in rungs.items() if rung not in reported}
            reported.update(new)
            for rung, record in new.items():
                self._patiently(partial(trial.report, pruning_score(record), rung))
            if is_diverged(records):
                return "diverged"
            at_the_end = watched.epoch >= LAST_RUNG_REACHED * self.plan.budget.epochs
            return "pruned" if new and not at_the_end and self._patiently(trial.should_prune) else None

        return judge

    def _tell(self, taken: optuna.Trial, outcome: TrialOutcome) -> None:
        result = tell(self.queue, taken, outcome, name=self._key(taken))
        if result is not None:
            self.news.trial_ended(taken, result, outcome)

    def _drop_weights(self) -> None:
        """Only the best trial keeps its weights."""
        best = studies.best_trial(self.study)
        for trial in studies.finished(self.study):
            if best is None or origin_of(trial) != origin_of(best):
                drop_weights(self.plan.trial_directory(origin_of(trial)))


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


def tell(queue: TrialQueue, trial: optuna.Trial, outcome: TrialOutcome, *, name: str) -> TrialResult | None:
    """The outcome to the trial's study. None where it was interrupted and waits in the queue again."""
    if outcome.ending == "interrupted":
        queue.interrupt(trial)
        return None
    result = score_trial(outcome.records, outcome.ending, outcome.misheard)
    frozen = queue.study.get_trials(deepcopy=False)[trial.number]
    describe(trial, result, outcome, told=frozen.constraints)
    if outcome.ending == "pruned":
        queue.study.tell(trial, state=TrialState.PRUNED)
    else:
        queue.study.tell(trial, result.value)
    said = outcome.error if result.is_failed else f"value={result.value:.4f} at epoch {result.epoch:.1f}"
    LOG.log(logging.WARNING if result.is_failed else logging.INFO, "%s %s: %s", name, outcome.ending, said)
    return result


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
