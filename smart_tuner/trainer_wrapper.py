"""A trial as a process: the ordinary `train.py`, in a process group of its own, followed through its metrics.jsonl."""

import errno
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from common.errors import NO_ROOM
from common.files import is_disk_full, write_atomic
from common.log import LOG
from common.signals import KILL, signal_group
from run_directory.metrics_log import MetricsFollower, read_metrics
from smart_tuner.objective import Ending, Records

GRACE_S = 60.0  # from SIGTERM to SIGKILL: the step is finished, a checkpoint is written
LATE_GRACE_S = 20.0  # the same, where the time given to the search is up
STALLED_S = 1800.0  # without a new record a trial hangs
POLL_S = 0.5
ROOM_WAITS_S = (15.0, 30.0, 60.0, 120.0, 240.0)  # before a trial that ended on a full disk is started again
SHOWN_LINES = 3  # of the output of a trial that died
OUTPUT_FILE, PID_FILE = "output.log", "pid"

# A trial whose search is killed gets SIGTERM from the kernel: it saves and ends, and doesn't train on for nobody.
# The signal belongs to the thread that started it, so that thread must stay for the trial's life: `run` does.
DIES_WITH_US = (
    "import ctypes, os, signal, sys; ctypes.CDLL(None).prctl(1, signal.SIGTERM); os.execv(sys.argv[1], sys.argv[1:])"
)


@dataclass(frozen=True)
class TrialOutcome:
    """How a trial ended, its exit code (under 0: by that signal), its records, and the end of its output if it died.

    misheard: share of the characters, where somebody has listened.
    """

    ending: Ending
    exit_code: int
    records: Records
    error: str = ""
    misheard: float | None = None


class TrainerWrapper:
    """Runs one trial's command in its own directory. ends_at: of time.monotonic(), when time is up."""

    def __init__(
        self,
        command: Sequence[str],
        directory: Path,
        *,
        environment: Mapping[str, str] | None = None,
        grace_s: float = GRACE_S,
        stalled_s: float = STALLED_S,
        poll_s: float = POLL_S,
        room_waits_s: Sequence[float] = ROOM_WAITS_S,
        ends_at: float = math.inf,
    ) -> None:
        self.command, self.directory = list(command), directory
        self.environment = dict(os.environ if environment is None else environment)
        self.room_waits_s = room_waits_s
        self._grace_s, self.stalled_s, self.poll_s, self.ends_at = grace_s, stalled_s, poll_s, ends_at

    @property
    def grace_s(self) -> float:
        return min(self._grace_s, max(0.0, self.ends_at + LATE_GRACE_S - time.monotonic()))

    def run(self, watch: Callable[[Records], Ending | None]) -> TrialOutcome:
        """Runs until the command ends or `watch`, called every `poll_s` with all records so far, says how it shall.

        A trial that something killed is started once more, and goes on from its own checkpoint. So is one that ended on
        a full disk, after a while; OSError (ENOSPC) where there is still no room.
        """
        end_leftover(self.directory, grace_s=self.grace_s)
        outcome = self._run_once(watch)
        if outcome.ending == "died" and is_kill(outcome.exit_code):
            LOG.warning("%s was killed (exit code %d); it goes on once more", self.directory, outcome.exit_code)
            outcome = self._run_once(watch)
        for wait_s in self.room_waits_s:
            if not self._lacks_room(outcome):
                return outcome
            LOG.warning("%s ended as the disk is full; it goes on in %.0f s", self.directory, wait_s)
            until = time.monotonic() + wait_s
            while time.monotonic() < until:
                if watch(outcome.records) == "interrupted":
                    return TrialOutcome("interrupted", outcome.exit_code, outcome.records)
                time.sleep(self.poll_s)
            outcome = self._run_once(watch)
        if self._lacks_room(outcome):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.directory))
        return outcome

    def _lacks_room(self, outcome: TrialOutcome) -> bool:
        """Whether it died for want of room: it says so, or had not even the room to say it."""
        if outcome.ending != "died" or is_kill(outcome.exit_code):
            return False
        is_said = any(os.strerror(number) in outcome.error for number in NO_ROOM)
        return is_said or is_disk_full(self.directory)

    def _run_once(self, watch: Callable[[Records], Ending | None]) -> TrialOutcome:
        process = self._start()
        try:
            ending = self._follow(process, watch)
        finally:
            stop_group(process, grace_s=self.grace_s)
            (self.directory / PID_FILE).unlink(missing_ok=True)
        records = read_metrics(self.directory)
        if ending is not None:
            error = f"no record for {self.stalled_s:.0f} s: it hung" if ending == "stalled" else ""
            return TrialOutcome(ending, process.returncode, records, error)
        if process.returncode == 0:
            watch(records)  # the last validation is reported too
            return TrialOutcome("finished", 0, records)
        return TrialOutcome("died", process.returncode, records, self._last_words(process.returncode))

    def _last_words(self, exit_code: int) -> str:
        if exit_code in (-KILL, 128 + KILL):
            return (
                "killed by the system (SIGKILL), twice; most often memory has run out: "
                "fewer --n-jobs, or a smaller batch_size"
            )
        return last_lines(self.directory / OUTPUT_FILE)

    def _start(self) -> subprocess.Popen[bytes]:
        self.directory.mkdir(parents=True, exist_ok=True)
        guard = [sys.executable, "-c", DIES_WITH_US] if sys.platform == "linux" else []
        with (self.directory / OUTPUT_FILE).open("ab") as output:
            process = subprocess.Popen(
                [*guard, *self.command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self.environment,
                start_new_session=True,
            )
        try:
            write_atomic(self.directory / PID_FILE, f"{process.pid}\n")
        except OSError:  # a full disk: nobody would find the process
            stop_group(process, grace_s=self.grace_s)
            raise
        return process

    def _follow(self, process: subprocess.Popen[bytes], watch: Callable[[Records], Ending | None]) -> Ending | None:
        """Until it ends by itself (None), or shall end."""
        follower, changed_at = MetricsFollower(self.directory), time.monotonic()
        records: Records = []
        while True:
            known, records = records, follower.records()
            if records is not known:
                changed_at = time.monotonic()
            ending = watch(records)
            if ending is None and time.monotonic() - changed_at > self.stalled_s:
                ending = "stalled"
            if ending is not None:
                return ending if process.poll() is None else None
            try:
                process.wait(self.poll_s)
                return None
            except subprocess.TimeoutExpired:
                continue


def is_kill(exit_code: int) -> bool:
    """Ended by a signal: itself, or one of several processes, of which the launcher tells by 128 + n."""
    return exit_code < 0 or exit_code in (128 + signal.SIGINT, 128 + signal.SIGTERM, 128 + KILL)


def stop_group(process: subprocess.Popen[bytes], *, grace_s: float) -> None:
    """SIGTERM and time to save, then SIGKILL for whatever is left: data loaders, and the processes of several GPUs,
    which lead groups of their own.
    """
    family: list[psutil.Process] = []
    if process.poll() is None:
        with suppress(psutil.Error):
            family = psutil.Process(process.pid).children(recursive=True)
        signal_group(process.pid, signal.SIGTERM)
        try:
            process.wait(grace_s)
        except subprocess.TimeoutExpired:
            LOG.warning("process %d did not end within %.0f s of SIGTERM; it is killed", process.pid, grace_s)
    signal_group(process.pid, KILL)
    for one in family:
        with suppress(psutil.Error):  # gone, as a rule; a number that is another's by now is left alone
            one.kill()
    process.wait()


def end_leftover(directory: Path, *, grace_s: float) -> None:
    """Ends the trial that a killed search left running in this directory: two must never write into one run."""
    try:
        pid = int((directory / PID_FILE).read_text())
        command = psutil.Process(pid).cmdline()
    except (OSError, ValueError, psutil.Error):  # no trial, or none any more
        return
    if str(directory) not in command:
        return  # the number belongs to another process by now
    LOG.warning("%s: an earlier search left process %d running; it is ended first", directory, pid)
    signal_group(pid, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while psutil.pid_exists(pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    signal_group(pid, KILL)


def last_lines(path: Path) -> str:
    lines = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return "\n".join(lines[-SHOWN_LINES:])
