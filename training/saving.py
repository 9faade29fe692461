"""Checkpoints of a run, written beside training: what became of each, and which steps no file holds."""

import time
from collections.abc import Callable

from checkpointing.background_writer import CheckpointWriter
from checkpointing.checkpoint_file import Checkpoint
from run_directory.records import Event


class Saving:
    """Begins one save at a time and reports how it ended. `newest`: the step of the newest whole checkpoint."""

    def __init__(self, writer: CheckpointWriter, emit: Callable[[Event], None]) -> None:
        self.writer, self.emit = writer, emit
        self.newest = 0
        self.problem = ""  # of the latest save that failed
        self._begun = -1
        self._stall_s = 0.0  # for which the save held training up

    def restored(self, step: int) -> None:
        self.newest = self._begun = step

    def holds(self, step: int) -> bool:
        """Whether that step is saved, or on its way."""
        return self._begun == step

    def start(self, state: Checkpoint, *, is_best: bool, keep_last: int, began: float) -> None:
        """Copies the state and writes it in the background; is_best makes it `best`. began: `time.perf_counter`."""
        self.writer.keep_last = keep_last
        self.writer.start(state, is_best=is_best)
        self._begun, self._stall_s = state.step, time.perf_counter() - began

    def collect(self, *, wait: bool = False) -> int | None:
        """Reports what became of the last save, if that is known by now; with `wait`, when it is. -> step, if saved"""
        done = self.writer.collect(wait=wait)
        if done is None:
            return None
        if done.removed:
            self.emit(Event(done.step, "milestones_removed", f"the disk is full; removed {', '.join(done.removed)}"))
        if done.path is None:
            self._begun, self.problem = -1, done.problem
            message = f"{done.problem}; older checkpoints are untouched, training goes on"
            self.emit(Event(done.step, "save_failed", message, {"cause": done.cause}))
            return None
        self.newest = done.step
        seconds = {"seconds": round(done.seconds, 3), "stall": round(self._stall_s, 3)}
        self.emit(Event(done.step, "saved", done.path.name, seconds))
        return done.step
