"""Forked children that train until something befalls them, and what that costs.

Forked from a process that has imported everything, so that hundreds take minutes; each runs the ordinary command.
"""

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from campaigns.table import Place
from checkpointing import checkpoint_file
from checkpointing import directory as checkpoint_dir
from support.runs import assert_same
from training.batches import StepData
from training.trainer import Trainer

SAVE_EVERY = 5
SAVE_CALLS = 10  # system calls of one save, with pointers, manifest and what is pruned
CALLS = ("fsync", "replace", "rename", "unlink")  # that sync a file or change a directory
RAISED = 70  # exit code
ENDLESS = 10**6  # steps
QUIET = f"epochs=1000000,iters_per_checkpoint={SAVE_EVERY},tensorboard_logging=False,save_attention_plots=False"

Work = Callable[[], int]  # -> exit code
Death = Callable[[Work], int]  # -> exit code of the process that did the work, negative for a signal


def in_child(work: Work, *, meanwhile: Callable[[int], None] = lambda pid: None) -> int:
    """Runs `work` in a forked process. meanwhile(pid): what befalls it. -> exit code, negative for a signal"""
    pid = quiet_child(work)
    meanwhile(pid)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def quiet_child(work: Work) -> int:
    """Begins `work` in a forked process. -> its id"""
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        code = RAISED
        try:
            code = work()
        finally:
            os._exit(code)
    return pid


def signalled(after_s: float, number: int) -> Death:
    """Gets a signal so long after its start; none if it is over by then."""

    def meanwhile(pid: int) -> None:
        time.sleep(after_s)
        os.kill(pid, number)  # not waited for yet, so there is such a process

    return lambda work: in_child(work, meanwhile=meanwhile)


def killed_at(call: int) -> Death:
    """Kills itself with SIGKILL before that system call."""
    return lambda work: in_child(lambda: at_call(call, die) or work())


def at_call(number: int, do: Callable[[], None]) -> None:
    """`do` comes before this process's `number`-th call from now on that syncs a file or changes a directory."""
    left = number

    def counted(original: Callable[..., None]) -> Callable[..., None]:
        def wrapper(*arguments: Any, **more: Any) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                do()
            original(*arguments, **more)

        return wrapper

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Ledger:
    """What a training has reached, begun to save, and told as saved; shared with the process that trains."""

    def __init__(self) -> None:
        # without locks: who is killed holding one never gives it back
        self.reached, self.begun, self.told = (multiprocessing.Value("q", 0, lock=False) for _ in range(3))

    def follow(self, *arguments: Any, **more: Any) -> Trainer:
        """The trainer of an ordinary run, here or in a child, that writes what it does in here."""
        return Followed(self, *arguments, **more)

    def begin_at(self, step: int) -> None:
        self.reached.value = self.begun.value = self.told.value = step

    def lost(self, newest: int) -> tuple[int, int]:
        """Steps since the newest whole checkpoint: up to the save in flight, if there is one, and those beside it."""
        until = self.begun.value if self.begun.value > newest else self.reached.value
        return until - newest, self.reached.value - until


class Followed(Trainer):
    def __init__(self, ledger: Ledger, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.ledger = ledger

    def _step(self, data: StepData) -> None:
        super()._step(data)
        self.ledger.reached.value = self.progress.step

    def save(self) -> None:
        super().save()
        self.ledger.begun.value = self.progress.step

    def collect_saved_checkpoint(self, *, wait: bool = False) -> None:
        super().collect_saved_checkpoint(wait=wait)
        self.ledger.told.value = self.saving.newest


class Toll:
    """What many deaths of one run have cost."""

    def __init__(self, place: Place, run: Path, deaths: Iterable[Death], *, settings: str = QUIET) -> None:
        """The same command again and again, from death to death."""
        self.place, self.run, self.settings = place, run, settings
        self.n = self.unusable = self.corrupt = self.finished = self.beside = 0
        ledger = Ledger()
        for death in deaths:
            before = newest_step(run)
            ledger.begin_at(before)
            self.unusable += (
                death(lambda: place.train(run, settings, ENDLESS, make_trainer=ledger.follow)) != -signal.SIGKILL
            )  # refused to go on
            newest = newest_step(run)
            path = checkpoint_dir.checkpoint_path(run / "checkpoints", newest)
            self.corrupt += (
                newest > 0 and checkpoint_dir.status_of(path).problem is not None
            ) or newest < ledger.told.value
            finished, beside = ledger.lost(newest)
            self.finished, self.beside = max(self.finished, finished), max(self.beside, beside)
            self.n += 1

    def outcome(self) -> tuple[str, bool]:
        """In words, and whether all promises were kept; after the run has gone on to its end."""
        end = newest_step(self.run) + 20
        is_same = ends_like_undisturbed(self.place, self.run, self.settings, end)
        text = (
            f"{self.unusable} runs that the same command could not resume, {self.corrupt} corrupt checkpoints accepted "
            f"or told ones lost; at most {self.finished} steps of a finished interval lost (saved every {SAVE_EVERY}), "
            f"and {self.beside} trained while the next checkpoint was in flight; weights and optimiser at step {end} "
            f"{'equal' if is_same else 'DIFFER FROM'} an undisturbed run's"
        )
        return text, is_same and not self.unusable and not self.corrupt and self.finished <= SAVE_EVERY


def newest_step(run: Path) -> int:
    newest = checkpoint_dir.newest_good(run / "checkpoints")
    return int(newest.name[5:13]) if newest else 0


def ends_like_undisturbed(place: Place, run: Path, settings: str, end: int) -> bool:
    """The run and a new one go on to the step `end` by the same command; equal weights and optimiser there."""
    straight = place.folder / f"{run.name}-undisturbed"
    if [in_child(lambda at=at: place.train(at, settings, end)) for at in (straight, run)] != [0, 0]:
        return False
    mine, other = (
        checkpoint_file.load(checkpoint_dir.checkpoint_path(at / "checkpoints", end)) for at in (run, straight)
    )
    assert mine.training is not None and other.training is not None
    try:
        assert_same(mine.model, other.model)
        assert_same(mine.training["optimizer"], other.training["optimizer"])
    except AssertionError:
        return False
    return True


def launch_s(place: Place) -> float:
    """How long a launch and thirty steps take."""
    began = time.perf_counter()
    assert in_child(lambda: place.train(place.folder / f"timed{random.random()}", QUIET, 30)) == 0
    return time.perf_counter() - began
