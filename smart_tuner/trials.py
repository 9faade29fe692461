"""The trials of this machine, so many at a time: asked for, run, followed, told."""

import logging
import math
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from common.errors import UserError
from common.files import explain_write_errors, write_atomic
from common.log import LOG
from smart_tuner import storage as storages
from smart_tuner import study as studies
from smart_tuner import time_plan
from smart_tuner.monitors.live_table import TrialProgress, live_table
from smart_tuner.monitors.news import StudyNews
from smart_tuner.objective import (
    LAST_RUNG_REACHED,
    Budget,
    Ending,
    Records,
    TrialPlan,
    TrialResult,
    is_diverged,
    pruning_score,
    score_trial,
    validations,
)
from smart_tuner.plan import Plan
from smart_tuner.search_space import acts
from smart_tuner.settings import SearchOptions
from smart_tuner.slots import environment
from smart_tuner.storage import experimental_parts, retry_storage
from smart_tuner.trainer_wrapper import TrainerWrapper, TrialOutcome
from smart_tuner.trial_queue import MAX_RETRIES, Nothing, TrialQueue, is_given_up, origin_of
from smart_tuner.trial_words import LISTENING_S
from tools import format_overrides
from training.trainer import StopRequest

LOOK_EVERY_S = 0.5
LOOK_FOR_WORK_S = 2.0  # while others' trials run that may be lost
TOLD_AFTER_WAITS = 3  # in a row; once may be another machine that was quicker
MAKE_ROOM = "free space there (df -h), then the same command goes on with this study"
WORKER_FILE = "worker"
BUDGET_ATTRIBUTE = "budget"  # of the study


class Search:
    """Runs the trials that a study still lacks, so many at a time. ends_at: of time.monotonic(), when time is up."""

    def __init__(
        self,
        study: optuna.Study,
        storage: optuna.storages.RDBStorage,
        plan: Plan,
        search: SearchOptions,
        stop: StopRequest,
        *,
        news: StudyNews,
        ends_at: float = math.inf,
    ) -> None:
        self.study, self.storage, self.plan, self.search, self.stop = study, storage, plan, search, stop
        self.watched: dict[int, TrialProgress] = {}  # by origin, those that run here
        self.worker = worker_name(plan.directory)
        self.queue = TrialQueue(study, storage, n_trials=search.n_trials, worker=self.worker)
        self.news, self.ends_at = news, ends_at
        self._lock = threading.Lock()  # asking and telling, one thread at a time
        self._failure: BaseException | None = None
        self._n_waits, self._has_told_of_waiting = 0, False

    def run(self) -> None:
        self._patiently(self.queue.reclaim)
        threads = [threading.Thread(target=self._work, args=(slot,)) for slot in range(self.search.n_jobs)]
        for thread in threads:
            thread.start()
        with live_table(self.study, self.watched, self.search.n_trials) as show:
            while any(thread.is_alive() for thread in threads):
                show()
                threads[-1].join(LOOK_EVERY_S)  # signals arrive in between
                threads = [thread for thread in threads if thread.is_alive()] or threads[-1:]
        if self._failure is not None:
            raise self._failure

    def _work(self, slot: int) -> None:
        try:
            with explain_write_errors(f"to {self.plan.directory}", next_step=MAKE_ROOM):
                while (trial := self._next()) is not None:
                    self._run(trial, slot)
        except BaseException as failure:  # noqa: BLE001 - the border of a thread: run() raises it again
            self._failure = failure

    def _is_ending(self) -> bool:
        return self.stop.signal is not None or self._failure is not None or time.monotonic() >= self.ends_at

    def _patiently(self, action: Callable[[], Any]) -> Any:
        return retry_storage(action, self._pause, is_ending=self._is_ending)

    def _pause(self, seconds: float) -> None:
        """As long, unless the search is to end."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._is_ending():
            time.sleep(min(LOOK_EVERY_S, max(0.0, until - time.monotonic())))

    def _next(self) -> optuna.Trial | None:
        """The next trial, its parameters drawn; None when the study has enough, or this launch must end."""
        while not self._is_ending():
            with self._lock:
                taken = self._patiently(self._take)
            if taken == "done":
                return None
            if taken != "wait":
                self._n_waits = 0
                return taken
            self._tell_of_waiting()
            time.sleep(min(LOOK_FOR_WORK_S, max(0.0, self.ends_at - time.monotonic())))
        return None

    def _take(self) -> optuna.Trial | Nothing:
        try:
            taken = self.queue.take()
            if isinstance(taken, optuna.Trial):
                with experimental_parts():
                    suggest(taken, self.plan)
            return taken
        except optuna.exceptions.UpdateFinishedTrialError:  # this machine stood still, and another took it for lost
            return "wait"

    def _tell_of_waiting(self) -> None:
        self._n_waits += 1
        if self._n_waits < TOLD_AFTER_WAITS or self._has_told_of_waiting or self.watched:
            return
        self._has_told_of_waiting = True
        n = self._patiently(self.queue.n_running_elsewhere)
        LOG.info("no trial is left to begin; waiting for %d that run elsewhere, in case a machine is lost (Ctrl-C ends "
                 "this one)", n)  # fmt: skip

    def _run(self, trial: optuna.Trial, slot: int) -> None:
        number = origin_of(trial)
        directory = self.plan.trial_directory(number)
        LOG.info("%s: %s", directory.name, format_overrides(trial.params))
        self.watched[number] = watched = TrialProgress(self.plan.budget.epochs)
        try:
            outcome = self._decide_budget(trial, slot) or self._outcome(trial, watched, slot)
            with self._lock:
                self._patiently(partial(self._tell, trial, outcome))
        except optuna.exceptions.UpdateFinishedTrialError:  # it stood still for minutes
            LOG.warning("%s: another machine took it for lost; its result is not used", directory.name)
        del self.watched[number]
        self._drop_checkpoints()

    def _outcome(self, trial: optuna.Trial, watched: TrialProgress, slot: int) -> TrialOutcome:
        if is_given_up(trial):
            return TrialOutcome("lost", 0, [], f"its machine was lost {MAX_RETRIES + 1} times")
        try:
            wrapper = self._wrapper(trial, slot)
        except UserError as error:  # values that don't go together: a bad trial, not the end of the search
            return TrialOutcome("died", error.exit_code, [], str(error))
        watched.epochs = self.plan.budget.epochs
        outcome = wrapper.run(self._watch(trial, watched))
        if self.plan.listener is None:
            return outcome
        heartbeat = TrialHeartbeat(self.storage, trial)

        def is_ending() -> bool:
            heartbeat.beat()
            return self._is_ending()

        return self.plan.listener.hear(outcome, wrapper.directory, is_ending=is_ending)

    def _wrapper(self, trial: optuna.Trial, slot: int, own: TrialPlan | None = None) -> TrainerWrapper:
        directory = self.plan.trial_directory(origin_of(trial))
        command = self.plan.command(directory, trial.params, own=own)
        shared = environment(slot, n_jobs=self.search.n_jobs, each=self.plan.gpus_per_trial)
        return TrainerWrapper(command, directory, environment=shared, ends_at=self.ends_at)

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

    def _measure(self, trial: optuna.Trial, slot: int, heartbeat: "TrialHeartbeat") -> TrialOutcome | None:
        budget = self.plan.budget
        if math.isfinite(self.ends_at) and self.plan.may_shrink and not studies.finished(self.study):
            began, left_s = time.time(), self.ends_at - time.monotonic()

            def watch(records: Records) -> Ending | None:
                heartbeat.beat()
                if self._is_ending():
                    return "interrupted"
                is_late = time.time() - began > time_plan.PROBE_SHARE * left_s
                return "finished" if is_late and time_plan.speed_of(records, began=began) else None

            try:
                outcome = self._wrapper(trial, slot, own=time_plan.PROBE).run(watch)
            except UserError:
                return None  # said where the trial itself is run
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


def worker_name(directory: Path) -> str:
    """Of whoever holds the lock of this study directory, now and after a restart; no other's on any machine.

    Machines may have equal names, and copies of a directory lie elsewhere: only both together tell workers apart.
    """
    path = directory / WORKER_FILE
    if not path.exists():
        write_atomic(path, uuid.uuid4().hex + "\n")
    return f"{socket.gethostname()}:{directory.resolve()}:{path.read_text().strip()}"


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


class TrialHeartbeat:
    """Tells the database that the trial lives. Optuna's own thread ends silently at the first error; this one tries
    again at the next beat.
    """

    def __init__(self, storage: optuna.storages.RDBStorage, trial: optuna.Trial) -> None:
        self._storage, self._id, self._next = storage, trial._trial_id, 0.0

    def beat(self) -> None:
        if time.monotonic() < self._next:
            return
        try:
            self._storage.record_heartbeat(self._id)
            self._next = time.monotonic() + storages.HEARTBEAT_S / 2
        except storages.STORAGE_ERRORS as error:
            LOG.warning("no heartbeat: %s", error)
            self._next = time.monotonic() + 5
