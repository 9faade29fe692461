"""What this machine does for a study: takes trials from the study's queues, so many at a time, until none is left."""

import shutil
import socket
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import optuna
from optuna.storages import RDBStorage
from rich.table import Table

from common.errors import UserError
from common.files import explain_write_errors, write_atomic
from common.log import LOG
from smart_tuner import storage as storages
from smart_tuner.monitors.live_table import TrialProgress, live_table
from smart_tuner.objective import Ending, Records
from smart_tuner.plan import Plan
from smart_tuner.settings import SearchOptions
from smart_tuner.slots import environment
from smart_tuner.storage import retry_storage
from smart_tuner.trainer_wrapper import TrainerWrapper, TrialOutcome
from smart_tuner.trial_queue import MAX_RETRIES, Nothing, TrialQueue, is_given_up
from training.trainer import StopRequest

LOOK_EVERY_S = 0.5
LOOK_FOR_WORK_S = 2.0  # while others' trials run that may be lost
TOLD_AFTER_WAITS = 3  # in a row; once may be another machine that was quicker
MAKE_ROOM = "free space there (df -h), then the same command goes on with this study"
WORKER_FILE = "worker"

Watch = Callable[[Records], Ending | None]  # of a training's records -> why it ends now, or None
Taken = TypeVar("Taken")  # a trial that this machine runs now, with what is needed to run it


class Worker(ABC, Generic[Taken]):
    """Runs what `_take` gives, `n_jobs` at a time, until time is up. Keys of `watched` name what it runs."""

    def __init__(self, storage: RDBStorage, plan: Plan, search: SearchOptions, stop: StopRequest) -> None:
        self.storage, self.plan, self.search, self.stop = storage, plan, search, stop
        self.watched: dict[str, TrialProgress] = {}  # what runs here
        self._lock = threading.Lock()  # asking and telling, one thread at a time
        self._failure: BaseException | None = None
        self._n_waits, self._has_told_of_waiting = 0, False

    @abstractmethod
    def _queues(self) -> list[TrialQueue]:
        """From which trials are taken."""

    @abstractmethod
    def _take(self) -> Taken | Nothing:
        """What is next."""

    @abstractmethod
    def _key(self, taken: Taken) -> str:
        """In `watched`."""

    @abstractmethod
    def _train(self, taken: Taken, watched: TrialProgress, slot: int) -> TrialOutcome:
        """To its end. slot: which of the `n_jobs` does it."""

    @abstractmethod
    def _tell(self, taken: Taken, outcome: TrialOutcome) -> None:
        """To the database."""

    @abstractmethod
    def _drop_weights(self) -> None:
        """Of what nobody goes on with."""

    @abstractmethod
    def _table(self) -> Table:
        """What a terminal shows now."""

    def run_all(self) -> None:
        """Until nothing is left or time is up. Raises what a thread raised."""
        for queue in self._queues():
            self._patiently(queue.reclaim)
        threads = [threading.Thread(target=self._work, args=(slot,)) for slot in range(self.search.n_jobs)]
        for thread in threads:
            thread.start()
        with live_table(self._table) as show:
            while any(thread.is_alive() for thread in threads):
                show()
                threads[-1].join(LOOK_EVERY_S)  # signals arrive in between
                threads = [thread for thread in threads if thread.is_alive()] or threads[-1:]
        if self._failure is not None:
            raise self._failure

    def _work(self, slot: int) -> None:
        try:
            with explain_write_errors(f"to {self.plan.directory}", next_step=MAKE_ROOM):
                while (taken := self._next()) is not None:
                    self._run(taken, slot)
        except BaseException as failure:  # noqa: BLE001 - the border of a thread: run_all() raises it again
            self._failure = failure

    def _is_ending(self) -> bool:
        return self.stop.signal is not None or self._failure is not None or time.monotonic() >= self.search.ends_at

    def _patiently(self, action: Callable[[], Any]) -> Any:
        return retry_storage(action, self._pause, is_ending=self._is_ending)

    def _pause(self, seconds: float) -> None:
        """As long, unless the search is to end."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._is_ending():
            time.sleep(min(LOOK_EVERY_S, max(0.0, until - time.monotonic())))

    def _next(self) -> Taken | None:
        """None where nothing is left, or this launch must end."""
        while not self._is_ending():
            with self._lock:
                taken = self._patiently(self._take_if_alive)
            if taken == "done":
                return None
            if taken != "wait":
                self._n_waits = 0
                return taken
            self._tell_of_waiting()
            self._pause(LOOK_FOR_WORK_S)
        return None

    def _take_if_alive(self) -> Taken | Nothing:
        try:
            return self._take()
        except optuna.exceptions.UpdateFinishedTrialError:  # this machine stood still, and another took it for lost
            return "wait"

    def _tell_of_waiting(self) -> None:
        self._n_waits += 1
        if self._n_waits < TOLD_AFTER_WAITS or self._has_told_of_waiting or self.watched:
            return
        self._has_told_of_waiting = True
        n = sum(self._patiently(queue.n_running_elsewhere) for queue in self._queues())
        LOG.info("no trial is left to begin; waiting for %d that run elsewhere, in case a machine is lost (Ctrl-C ends "
                 "this one)", n)  # fmt: skip

    # -- one trial ----------------------------------------------------------------------------------------------------

    def _run(self, taken: Taken, slot: int) -> None:
        key = self._key(taken)
        self.watched[key] = watched = TrialProgress(self.plan.budget.epochs)
        try:
            outcome = self._train(taken, watched, slot)
            with self._lock:
                self._patiently(partial(self._tell, taken, outcome))
        except optuna.exceptions.UpdateFinishedTrialError:  # it stood still for minutes
            LOG.warning("%s: another machine took it for lost; its result is not used", key)
        del self.watched[key]
        with self._lock:
            self._patiently(self._drop_weights)

    def _outcome(
        self, trial: optuna.Trial, command: Callable[[], list[str]], directory: Path, slot: int, watch: Watch
    ) -> TrialOutcome:
        """Trained, and heard where words count. command: raises UserError for values that don't go together."""
        if is_given_up(trial):
            return TrialOutcome("lost", 0, [], f"its machine was lost {MAX_RETRIES + 1} times")
        try:
            wrapper = self._wrapper(command(), directory, slot)
        except UserError as error:  # a bad trial, not the end of the search
            return TrialOutcome("died", error.exit_code, [], str(error))
        outcome = wrapper.run(watch)
        if self.plan.listener is None:
            return outcome
        is_ending = partial(self._beats_and_ends, TrialHeartbeat(self.storage, trial))
        return self.plan.listener.hear(outcome, directory, is_ending=is_ending)

    def _wrapper(self, command: list[str], directory: Path, slot: int) -> TrainerWrapper:
        shared = environment(slot, n_jobs=self.search.n_jobs, each=self.plan.gpus_per_trial)
        return TrainerWrapper(command, directory, environment=shared, ends_at=self.search.ends_at)

    def _following(self, trial: optuna.Trial, watched: TrialProgress, judge: Watch) -> Watch:
        """What looks at a training's records again and again; judge: whether new ones end it."""
        known: Records | None = None
        heartbeat = TrialHeartbeat(self.storage, trial)

        def watch(records: Records) -> Ending | None:
            nonlocal known
            if self._beats_and_ends(heartbeat):
                return "interrupted"
            if records is known:  # a look costs nothing where nothing has come
                return None
            known = records
            watched.update(records)
            return judge(records)

        return watch

    def _beats_and_ends(self, heartbeat: "TrialHeartbeat") -> bool:
        heartbeat.beat()
        return self._is_ending()


def drop_weights(run: Path) -> None:
    """Its checkpoints; records, pictures and sounds stay."""
    if (run / "checkpoints").exists():
        shutil.rmtree(run / "checkpoints")


def worker_name(directory: Path) -> str:
    """Of whoever holds the lock of this study directory, now and after a restart; no other's on any machine.

    Machines may have equal names, and copies of a directory lie elsewhere: only both together tell workers apart.
    """
    path = directory / WORKER_FILE
    if not path.exists():
        write_atomic(path, uuid.uuid4().hex + "\n")
    return f"{socket.gethostname()}:{directory.resolve()}:{path.read_text().strip()}"


class TrialHeartbeat:
    """Tells the database that the trial lives. Optuna's own thread ends silently at the first error; this one tries
    again at the next beat.
    """

    def __init__(self, storage: RDBStorage, trial: optuna.Trial) -> None:
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
