"""What befalls a search of real trials: its database is locked or restarted, its disk full, trials hang or are killed.

Of each the same is asked: the command ends by itself, each trial has one result, and none is left running or waiting.
"""

import os
import random
import signal
import sqlite3
import subprocess
import time
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from operator import contains
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from campaigns.children import quiet_child
from campaigns.searches import NOT_SEARCHED
from campaigns.table import Place, Row
from common.errors import GaveUp, UserError
from smart_tuner import storage as storages
from smart_tuner.optimization_engine import optimize
from smart_tuner.settings import Layers, SearchOptions
from smart_tuner.trainer_wrapper import PID_FILE, TrainerWrapper
from smart_tuner.trial_queue import DONE
from support import postgres
from support.commands import holds_a_step
from support.corpora import tiny_settings
from training.options import Options

TRIALS, STEPS = 2, 100  # a trial trains for some seconds
LOCKED_S, FULL_S, DOWN_S = 30.0, 15.0, 10.0
STALLED_S, GRACE_S = 120.0, 3.0  # of the trial that hangs, in place of half an hour and a minute
TRIES = 6  # of a database that can't be used: a minute in place of nine
ENOUGH_S = 900.0
DISK = "48m"


@dataclass
class Search:
    """The ordinary command in a folder of its own, its trials the real train.py."""

    folder: Path
    corpus: Path
    url: str | None = None
    patience: Mapping[str, float] = field(default_factory=dict)  # of the search with its trials
    exit_codes: list[int] = field(default_factory=list)
    pid: int = 0

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.pid = quiet_child(self.work)

    def work(self) -> int:
        os.chdir(self.folder)
        TrainerWrapper.__init__.__kwdefaults__ |= self.patience  # type: ignore[operator]
        storages.retry_storage.__kwdefaults__ |= {"tries": TRIES}  # type: ignore[operator]
        given = tiny_settings(self.corpus).split(",")
        overrides = ",".join(pair for pair in given if pair.split("=")[0] not in NOT_SEARCHED)
        search = SearchOptions(n_trials=TRIALS, storage=self.url)
        options = Options(output=Path("output"), logs=Path("logs"), max_steps=STEPS)
        try:
            return optimize(Layers(overrides=overrides), options, search, repeated=())
        except (UserError, GaveUp) as error:
            self.say(str(error))
            return error.exit_code
        except BaseException:
            self.say(traceback.format_exc())
            raise

    def say(self, text: str) -> None:
        with suppress(OSError):  # the disk may be full
            (self.folder / "said.txt").write_text(text)

    def said(self) -> str:
        path = self.folder / "said.txt"
        return path.read_text() if path.exists() else "nothing"

    def wait_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + ENOUGH_S
        while not condition():
            assert time.monotonic() < deadline and not self.has_ended(), f"nothing to hit; it said {self.said()}"
            time.sleep(0.02)

    def has_ended(self) -> bool:
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def wait(self) -> None:
        deadline = time.monotonic() + ENOUGH_S
        while not self.has_ended() and time.monotonic() < deadline:
            time.sleep(0.1)
        if not self.has_ended():
            os.kill(self.pid, signal.SIGKILL)
        self.exit_codes.append(os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]))

    def trains(self) -> bool:
        return holds_a_step(self.trial / "metrics.jsonl")

    @property
    def trial(self) -> Path:
        return self.folder / "output/study/trial_00000"

    def trial_pid(self) -> int:
        return int((self.trial / PID_FILE).read_text())

    def row(self, fault: str, endings: list[str], *, exit_codes: Sequence[Collection[int]]) -> Row:
        """endings: what each trial must have come to, in their order. exit_codes: those allowed, of each launch."""
        found = self.found()
        done = [trial for trial in found if trial.state in DONE]
        open_ = sum(trial.state in (TrialState.RUNNING, TrialState.WAITING) for trial in found)
        ended = [str(trial.user_attrs.get("ending")) for trial in done]
        outcome = f"{len(done)} of {TRIALS} trials have their one result ({', '.join(ended)}), {open_} left running or "
        outcome += f"waiting, exit code {', then '.join(map(str, self.exit_codes))}"
        is_expected = len(self.exit_codes) == len(exit_codes) and all(map(contains, exit_codes, self.exit_codes))
        return Row(fault, outcome, ended == endings and not open_ and is_expected)

    def found(self) -> list[FrozenTrial]:
        storage = storages.open_storage(self.url, self.folder / "output/study")
        try:
            name = "study" if self.url is None else "output"
            return optuna.load_study(study_name=name, storage=storage).trials
        finally:
            storage.engine.dispose()


def begun(place: Place, name: str, *, folder: Path | None = None, **more: Any) -> Search:
    """A search whose first trial trains."""
    search = Search(folder or place.folder / name, place.corpus, **more)
    search.start()
    search.wait_until(search.trains)
    return search


def locked(place: Place, chance: random.Random) -> Row:
    search = begun(place, "locked")
    with closing(sqlite3.connect(search.folder / "output/study/optuna.db", isolation_level=None, timeout=60)) as held:
        held.execute("BEGIN EXCLUSIVE")
        time.sleep(LOCKED_S)
        held.execute("ROLLBACK")
    search.wait()
    return search.row(f"a search's SQLite locked for {LOCKED_S:.0f} s", ["finished"] * TRIALS, exit_codes=[{0}])


def restarted(place: Place, chance: random.Random) -> Row:
    fault = f"a search's PostgreSQL gone for {DOWN_S:.0f} s"
    if reason := postgres.missing():
        return Row(fault, f"not run: {reason}", True)
    with postgres.restartable() as server:
        search = begun(place, "restarted", url=server.url)
        server.stop()
        time.sleep(DOWN_S)
        server.start()
        search.wait()
        return search.row(fault, ["finished"] * TRIALS, exit_codes=[{0}])


def hung(place: Place, chance: random.Random) -> Row:
    search = begun(place, "hung", patience={"stalled_s": STALLED_S, "grace_s": GRACE_S})
    os.kill(search.trial_pid(), signal.SIGSTOP)
    search.wait()
    return search.row("a trial that hangs (SIGSTOP)", ["stalled", "finished"], exit_codes=[{0}])


def out_of_memory(place: Place, chance: random.Random) -> Row:
    """What the kernel does to a process when memory is over; twice, as the first time may have been chance."""
    search = begun(place, "memory")
    first = search.trial_pid()
    os.kill(first, signal.SIGKILL)
    search.wait_until(lambda: (search.trial / PID_FILE).exists() and search.trial_pid() != first)
    os.kill(search.trial_pid(), signal.SIGKILL)
    search.wait()
    return search.row("a trial killed for memory, twice (kill -9)", ["died", "finished"], exit_codes=[{0}])


def killed_once(place: Place, chance: random.Random) -> Row:
    search = begun(place, "killed")
    os.kill(search.trial_pid(), signal.SIGKILL)
    search.wait()
    return search.row("a trial killed once (kill -9)", ["finished"] * TRIALS, exit_codes=[{0}])


def full_for_a_while(place: Place, chance: random.Random) -> Row:
    """The study, its trials and their logs on a disk that is full while the first trial trains."""
    fault = f"a search's disk full for {FULL_S:.0f} s (tmpfs)"
    return on_own_disk(place, fault, lambda search: None, exit_codes=[{0}])


def full_until_it_ends(place: Place, chance: random.Random) -> Row:
    """It stays full: one message, and the same command goes on once there is room."""

    def ends(search: Search) -> None:
        search.wait()

    fault = "a search's disk full to its end (tmpfs), the same command again"
    no_room = {2, 4}  # for the trial's files, or for the database, whichever is told first
    return on_own_disk(place, fault, ends, exit_codes=[no_room, {0}])


def on_own_disk(
    place: Place, fault: str, while_full: Callable[[Search], None], *, exit_codes: Sequence[Collection[int]]
) -> Row:
    if os.geteuid() != 0:
        return Row(fault, "not tried: mounting a disk needs root", True)
    disk = place.folder / f"disk{len(exit_codes)}"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(disk)], check=True)
    try:
        search = begun(place, "full", folder=disk / "search")
        fill(disk / "filler")
        time.sleep(FULL_S)
        while_full(search)
        (disk / "filler").unlink()
        if search.exit_codes:
            search.start()
        search.wait()
        return search.row(fault, ["finished"] * TRIALS, exit_codes=exit_codes)
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


Fault = Callable[[Place, random.Random], Row]
FAULTS: tuple[Fault, ...] = (
    locked, restarted, hung, out_of_memory, killed_once, full_for_a_while, full_until_it_ends,
)  # fmt: skip


def search_faults(place: Place, chance: random.Random) -> list[Row]:
    return [fault(place, chance) for fault in FAULTS]
