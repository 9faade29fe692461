"""The protocol of all that watches a run, and the queue that keeps it from slowing training."""

import math
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from common.cli import expect_foreign_threads
from common.errors import NO_ROOM
from common.log import LOG
from run_directory.metrics_log import RunLog
from run_directory.records import Record

# How long the end of a run waits: for files here (a thread that still draws while the interpreter ends aborts the
# process, and a busy machine draws slowly), and for servers, which can get later what they lack, or do without.
FILES_CLOSE_S = 120.0
SERVER_CLOSE_S = 6.0


class Observer(Protocol):
    """Watches a run. Called from one thread at a time, in order; `close` comes last.

    The last event before `close` is `ended` or `crashed`; its data says why.
    """

    def on_start(self, run: "RunInfo") -> None: ...
    def on_record(self, record: Record) -> None: ...
    def close(self) -> None: ...


@runtime_checkable
class StepCounter(Protocol):
    """An observer that counts single steps, too, whose losses come later in a record."""

    def on_step(self, step: int) -> None: ...


@dataclass(frozen=True)
class RunInfo:
    """What an observer may want to know at the start."""

    directory: Path
    log_directory: Path
    hparams: Mapping[str, Any]
    total_steps: int | None
    first_step: int
    command: str


class ObserverOff(Exception):
    """Raised by an observer that can do no more; its text is for the user."""


class BackgroundObserver:
    """Runs an observer in its own thread behind a bounded queue.

    Training never waits: when the queue is full the oldest record is dropped and counted. An observer that
    raises is switched off, once, with a warning; training goes on. `closing` is set as soon as the run is over: an
    observer that got the same event can cut its pauses short. The end waits for it at most `patience_s`.
    """

    def __init__(
        self,
        observer: Observer,
        *,
        size: int = 256,
        closing: threading.Event | None = None,
        patience_s: float = 10.0,
        closes_last: bool = False,
    ) -> None:
        self.observer, self.dropped = observer, 0
        self.patience_s, self.closes_last = patience_s, closes_last
        self.name = type(observer).__name__.removesuffix("Observer")
        self._closing = closing or threading.Event()
        self._is_told = False  # of a full disk
        self._queue: queue.Queue[Any] = queue.Queue(maxsize=size)
        self._thread = threading.Thread(target=self._work, name=f"observer {self.name}", daemon=True)
        self._thread.start()

    def on_start(self, run: RunInfo) -> None:
        self._put(("on_start", run))

    def on_record(self, record: Record) -> None:
        self._put(("on_record", record))

    def finish_soon(self) -> None:
        """Says that nothing more will come. Doesn't wait; `close` does."""
        if not self._closing.is_set():
            self._closing.set()
            self._put(("close", None))

    def close(self, timeout_s: float | None = None) -> None:
        """Lets the thread finish what is queued, for at most `timeout_s`, or its own patience."""
        self.finish_soon()
        timeout_s = self.patience_s if timeout_s is None else timeout_s
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            text = "%s did not finish within the %.0f s that a run's end allows; what it lacks is in metrics.jsonl"
            LOG.warning(text, self.name, timeout_s)
            expect_foreign_threads()
        if self.dropped:
            LOG.warning("%s missed %d records: it was too slow", self.name, self.dropped)

    def _put(self, item: tuple[str, Any]) -> None:
        while True:
            try:
                self._queue.put_nowait(item)
                return
            except queue.Full:
                try:
                    self._queue.get_nowait()
                    self.dropped += 1
                except queue.Empty:  # the thread took it in between: there is room now
                    continue

    def _work(self) -> None:
        while True:
            method, argument = self._queue.get()
            try:
                if method == "close":
                    self.observer.close()
                    return
                getattr(self.observer, method)(argument)
            except Exception as error:  # noqa: BLE001 - the border: whatever a tracker does, training goes on
                if method == "on_record" and isinstance(error, OSError) and error.errno in NO_ROOM:
                    self._tell_of_full_disk(error)
                    continue
                reason = str(error) if isinstance(error, ObserverOff) else f"{type(error).__name__}: {error}"
                LOG.warning("%s is off for the rest of this run: %s", self.name, reason)
                if method != "close":
                    self._drain()
                return

    def _tell_of_full_disk(self, error: OSError) -> None:
        if not self._is_told:
            LOG.warning("%s can't write (%s): it goes on when there is room, without what it missed", self.name, error)
        self._is_told = True

    def _drain(self) -> None:
        while self._queue.get()[0] != "close":
            pass


class Recorder:
    """Where a run's records go: to disk first, then to whoever watches.

    Of several processes only the first has a log and observers; the others' recorder does nothing.
    """

    def __init__(self, log: RunLog | None = None, observers: Sequence[Observer] = ()) -> None:
        self.log, self.observers = log, observers
        self._counters: list[StepCounter] = []

    def start(self, run: RunInfo) -> None:
        for observer in self.observers:
            observer.on_start(run)
        self._counters = [observer for observer in self.observers if isinstance(observer, StepCounter)]

    def step_done(self, step: int) -> None:
        """A step was taken; no record is made of it, and nothing waits for the device."""
        for counter in self._counters:
            counter.on_step(step)

    def emit(self, record: Record) -> None:
        if self.log is not None:
            self.log.write(record)
        for observer in self.observers:
            observer.on_record(record)

    def rewind(self, to_step: int) -> None:
        """Whatever was recorded after `to_step` will be done again."""
        if self.log is not None:
            self.log.rewind(to_step)

    def close(self) -> None:
        close_all(self.observers)
        if self.log is not None:
            self.log.close()


def close_all(observers: Sequence[Observer], *, until: float = math.inf) -> None:
    """Closes them in order. Those behind queues finish beside each other, but for those that are to close last.

    until: of time.monotonic(), after which none behind a queue is waited for.
    """
    for observer in observers:
        if isinstance(observer, BackgroundObserver) and not observer.closes_last:
            observer.finish_soon()
    began = time.monotonic()
    for observer in observers:
        if isinstance(observer, BackgroundObserver) and not observer.closes_last:
            observer.close(max(min(began + observer.patience_s, until) - time.monotonic(), 0.0))
        else:
            observer.close()
