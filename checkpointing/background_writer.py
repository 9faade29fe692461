"""Checkpoints written while training goes on: copied within the step, written by a thread, at most one at a time."""

import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from checkpointing import directory as checkpoint_dir
from checkpointing.checkpoint_file import Checkpoint
from common.errors import NO_ROOM, cause_of, is_out_of_memory


@dataclass(frozen=True)
class SaveResult:
    """What became of one checkpoint. `problem` says why there is no file, `cause` as `cause_of` does."""

    step: int
    path: Path | None
    seconds: float
    removed: tuple[str, ...] = ()  # milestones given up because the disk was full
    problem: str = ""
    cause: str | None = None


def copied(value: Any) -> Any:
    """Nested dicts, lists and tuples with every tensor in memory of its own, on the CPU."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: copied(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(copied(item) for item in value)
    return value


def snapshot(checkpoint: Checkpoint) -> Checkpoint:
    """A copy on the host, safe to write while training continues."""
    return replace(checkpoint, model=copied(checkpoint.model), training=copied(checkpoint.training))


class CheckpointWriter:
    """Writes one checkpoint at a time into `directory`, prunes, and keeps `best` pointing."""

    def __init__(self, directory: Path, *, keep_last: int, milestone_every: int) -> None:
        self.directory, self.keep_last, self.milestone_every = directory, keep_last, milestone_every
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[SaveResult] | None = None

    def start(self, checkpoint: Checkpoint, *, is_best: bool) -> None:
        """Copies a checkpoint and writes the copy in the background; is_best makes it `best`.

        Where memory does not suffice for a copy, it is written before this returns. The one before must be collected.
        """
        assert self._pending is None, "the checkpoint before is still being written"
        try:
            self._pending = self._thread.submit(self._write, snapshot(checkpoint), is_best)
            return
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # outside of the handler: the error's traceback would keep the half of a copy alive
        self._pending = Future()
        self._pending.set_result(self._write(checkpoint, is_best))

    def collect(self, *, wait: bool = False) -> SaveResult | None:
        """What became of the last checkpoint, told once; None while it is being written and where there is none."""
        if self._pending is None or not (wait or self._pending.done()):
            return None
        done, self._pending = self._pending.result(), None
        return done

    def _write(self, checkpoint: Checkpoint, is_best: bool) -> SaveResult:
        began, removed = time.perf_counter(), list[Path]()
        try:
            path = self._save(checkpoint, removed)
            # once a listener has chosen a best, no score does
            if is_best and checkpoint_dir.pointed(self.directory, checkpoint_dir.CLEAREST) is None:
                checkpoint_dir.point(self.directory, "best", path)
            checkpoint_dir.prune(self.directory, keep_last=self.keep_last, milestone_every=self.milestone_every)
        except (OSError, RuntimeError, MemoryError) as error:
            if not isinstance(error, OSError) and not is_out_of_memory(error):
                raise
            seconds = time.perf_counter() - began
            return SaveResult(checkpoint.step, None, seconds, _names(removed), str(error), cause_of(error))
        return SaveResult(checkpoint.step, path, time.perf_counter() - began, _names(removed))

    def _save(self, checkpoint: Checkpoint, removed: list[Path]) -> Path:
        """On a full disk once more, after milestones have made room: the newest state is worth more than an old one."""
        try:
            return checkpoint_dir.save(checkpoint, self.directory)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            removed += checkpoint_dir.prune(self.directory, keep_last=2, milestone_every=0)
            if not removed:
                raise
            return checkpoint_dir.save(checkpoint, self.directory)


def _names(paths: list[Path]) -> tuple[str, ...]:
    return tuple(path.name for path in paths)
