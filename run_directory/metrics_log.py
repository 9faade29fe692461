"""The run directory and the truth about a run: `metrics.jsonl`, `events.jsonl`, and who may watch.

Trainer and tuner speak in three records. `RunLog` writes them to disk; observers (console, TensorBoard, ...)
get the same records and can neither slow nor stop training: see `BackgroundObserver`.

Symbols used throughout: B batch, T_text tokens, T_mel frames, T_dec decoder steps (T_mel / r), n_mels mel
channels, D hidden width, L audio samples.
"""

import errno
import json
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from common.log import LOG
from run_directory.records import EvalRecord, Event, Record, StepRecord

WAITING_LINES = 10_000  # kept in memory while the disk is full: some days of a run


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
            self._open_again_if_removed()
            while self._waiting:
                self._write(self._waiting[0])
                self._waiting.popleft()
        except OSError as error:
            if not was_refused:
                LOG.warning("%s can't be written (%s): its lines wait until it can", self.path, error.strerror)

    def _open_again_if_removed(self) -> None:
        """A file that somebody removed takes lines without a word, and they are gone with it."""
        try:
            is_there = os.path.samestat(os.stat(self.path), os.fstat(self._file.fileno()))
        except FileNotFoundError:
            is_there = False
        if not is_there:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            anew = self.path.open("ab", buffering=0)  # before the old one is closed: this may fail, and is tried again
            self._file.close()
            self._file = anew
            LOG.warning("%s was removed while the run goes on: what it held is lost, and it begins anew", self.path)

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
        yield from _parsed(line for line in f if line.endswith("\n"))


def _parsed(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        with suppress(ValueError):
            yield json.loads(line)


def read_metrics(directory: Path) -> list[dict[str, Any]]:
    """The run's step and eval records with each step once: what a rewind superseded is gone."""
    return without_superseded(read_jsonl(directory / "metrics.jsonl"))


class MetricsFollower:
    """The same of a run that goes on: each line is parsed once, however often one looks."""

    def __init__(self, directory: Path) -> None:
        self._path, self._file_id, self._n_bytes = directory / "metrics.jsonl", -1, 0
        self._records: list[dict[str, Any]] = []

    def records(self) -> list[dict[str, Any]]:
        """All so far; the very list of the last time where nothing has come."""
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            return self._records
        with file:
            status = os.fstat(file.fileno())
            if status.st_ino != self._file_id or status.st_size < self._n_bytes:  # another file, or begun anew
                self._file_id, self._n_bytes, self._records = status.st_ino, 0, []
            if status.st_size > self._n_bytes:
                file.seek(self._n_bytes)
                self._take(file.read())
        return self._records

    def _take(self, content: bytes) -> None:
        whole = content[: content.rfind(b"\n") + 1]  # half a line is looked at when it is whole
        self._n_bytes += len(whole)
        if new := list(_parsed(whole.decode("utf-8", errors="replace").split("\n")[:-1])):
            self._records = without_superseded([*self._records, *new])


def without_superseded(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records of `metrics.jsonl` without rewinds and what they supersede."""
    kept: list[dict[str, Any]] = []
    for line in lines:
        if line["type"] == "rewind":
            kept = [old for old in kept if old["step"] <= line["to_step"]]
        else:
            kept.append(line)
    return kept
