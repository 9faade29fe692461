"""The run directory and the truth about a run: `metrics.jsonl`, `events.jsonl`, and who may watch.

Trainer and tuner speak in three records. `RunLog` writes them to disk; observers (console, TensorBoard, ...)
get the same records and can neither slow nor stop training: see `Queued`.

Symbols used throughout: B batch, T_text tokens, T_mel frames, T_dec decoder steps (T_mel / r), n_mels mel
channels, D hidden width, L audio samples.
"""

import errno
import json
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from common.files import NO_ROOM
from common.log import LOG
from run_directory.records import EvalRecord, Event, Record, StepRecord

WAITING_LINES = 10_000  # kept in memory while the disk is full: some days of a run
REMOTE_CLOSE_S = 6.0  # at the end of a run, for trackers, which can get later what they lack, or do without


class Observer(Protocol):
    """Watches a run. Called from one thread at a time, in order; `close` comes last.

    How the run ended says the event before: `ended` (data: `signal`, None unless interrupted) or `crashed`.
    """

    def on_start(self, run: "RunInfo") -> None: ...
    def on_record(self, record: Record) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class RunInfo:
    """What an observer may want to know at the start."""

    directory: Path
    log_directory: Path
    hparams: Mapping[str, Any]
    total_steps: int | None
    first_step: int
    command: str


class RunLog:
    """Appends records to `metrics.jsonl` and `events.jsonl` of a run directory.

    Each line carries the attempt: the number of this launch. After a restore, `rewind` says which steps are
    superseded; `read_metrics` drops them, so the truth has each step once.
    """

    def __init__(self, directory: Path, *, attempt: int) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory, self.attempt = directory, attempt
        self._files = {name: _Lines(directory / name) for name in ("metrics.jsonl", "events.jsonl")}

    def write(self, record: Record) -> None:
        content = asdict(record)
        content.pop("samples", None)
        if not content.get("modules", True):
            del content["modules"]
        name = "events.jsonl" if isinstance(record, Event) else "metrics.jsonl"
        self._append(name, {"type": _type_name(record), **content})

    def rewind(self, to_step: int) -> None:
        """Says that whatever was recorded after `to_step` will be done again."""
        self._append("metrics.jsonl", {"type": "rewind", "to_step": to_step})

    def _append(self, name: str, content: dict[str, Any]) -> None:
        line = {"time": round(time.time(), 3), "attempt": self.attempt, **content}
        self._files[name].append(json.dumps(line, ensure_ascii=False, allow_nan=True))

    def close(self) -> None:
        for file in self._files.values():
            file.close()


def _type_name(record: Record) -> str:
    return {StepRecord: "step", EvalRecord: "eval", Event: "event"}[type(record)]


class _Lines:
    """Appends whole lines to a file. Those that a full disk refuses wait for room, so that training can go on."""

    def __init__(self, path: Path) -> None:
        """At a line's start, even if a kill left half a line behind."""
        content = path.read_bytes() if path.exists() else b""
        if not content.endswith(b"\n"):
            path.touch()
            os.truncate(path, content.rfind(b"\n") + 1)
        self.path, self._file = path, path.open("ab", buffering=0)
        self._waiting: deque[bytes] = deque(maxlen=WAITING_LINES)

    def append(self, line: str) -> None:
        was_refused = bool(self._waiting)
        self._waiting.append(line.encode("utf-8") + b"\n")
        try:
            while self._waiting:
                self._write(self._waiting[0])
                self._waiting.popleft()
        except OSError as error:
            if not was_refused:
                LOG.warning("%s can't be written (%s): its lines wait until it can", self.path, error.strerror)

    def _write(self, line: bytes) -> None:
        """All of it, or OSError and nothing."""
        size = os.fstat(self._file.fileno()).st_size
        try:
            if self._file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            os.truncate(self.path, size)
            raise

    def close(self) -> None:
        if self._waiting:
            LOG.warning("%s lacks its newest %d lines: the disk has no room for them", self.path, len(self._waiting))
        self._file.close()


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Every whole line; half of one (a kill) and what is no JSON (blocks lost in a power cut) are passed over."""
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as f:  # the half line may end within a character
        for line in f:
            if line.endswith("\n"):
                with suppress(ValueError):
                    yield json.loads(line)


def read_metrics(directory: Path) -> list[dict[str, Any]]:
    """The run's step and eval records with each step once: what a rewind superseded is gone."""
    return without_superseded(read_jsonl(directory / "metrics.jsonl"))


def without_superseded(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records of `metrics.jsonl` without rewinds and what they supersede."""
    kept: list[dict[str, Any]] = []
    for line in lines:
        if line["type"] == "rewind":
            kept = [old for old in kept if old["step"] <= line["to_step"]]
        else:
            kept.append(line)
    return kept


class ObserverOff(Exception):
    """Raised by an observer that can do no more; its text is for the user."""


class Queued:
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
        self._thread.join(self.patience_s if timeout_s is None else timeout_s)
        if self._thread.is_alive():
            text = "%s did not finish within the %.0f s that a run's end allows; what it lacks is in metrics.jsonl"
            LOG.warning(text, self.name, self.patience_s)
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


def close_all(observers: Sequence[Observer]) -> None:
    """Closes them in order. Those behind queues finish beside each other, but for those that are to close last."""
    for observer in observers:
        if isinstance(observer, Queued) and not observer.closes_last:
            observer.finish_soon()
    began = time.monotonic()
    for observer in observers:
        if isinstance(observer, Queued) and not observer.closes_last:
            observer.close(max(began + observer.patience_s - time.monotonic(), 0.0))
        else:
            observer.close()
