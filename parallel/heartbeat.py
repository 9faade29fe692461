"""Signs of life: each process of a launch moves the time of a file, and the launcher finds the one that has stopped."""

import faulthandler
import os
import signal
import time
from collections.abc import Container, Mapping
from pathlib import Path

FOLDER = "TACOTRON2_PULSES"  # environment variable, of the launcher's making: where the files are
ALL_STOOD_S = 5.0  # between two looks of the launcher: it was stopped too (Ctrl-Z, a suspended job), so nobody hangs
TELLS_WHERE = signal.SIGUSR1  # makes a process print where its training is


class Pulse:
    """One process's sign of life. `Pulse(None)`: nobody watches."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        if path is not None:
            path.touch()
            self.beat()

    def beat(self, *, patience_s: float = 0.0) -> None:
        """patience_s: how much longer than usual the next one may take."""
        if self.path is not None:
            at_s = time.monotonic() + patience_s
            os.utime(self.path, (at_s, at_s))


def pulse_of(local_rank: int, environment: Mapping[str, str] = os.environ) -> Pulse:
    """Of this process, for the launcher that started it."""
    if FOLDER not in environment:
        return Pulse(None)
    faulthandler.register(TELLS_WHERE, all_threads=False)
    return Pulse(Path(environment[FOLDER]) / str(local_rank))


class Watch:
    """The launcher's look at all pulses of its machine. timeout_s: a process that stands still for so long hangs."""

    def __init__(self, folder: Path, *, timeout_s: float) -> None:
        self.folder, self.timeout_s = folder, timeout_s
        self._looked_at = self._since = time.monotonic()

    def standing(self, *, ended: Container[int] = ()) -> int | None:
        """The process that has stood still for longest, if that is too long: the others wait for it."""
        now = time.monotonic()
        if now - self._looked_at > ALL_STOOD_S:
            self._since = now
        self._looked_at = now
        beats = {int(path.name): path.stat().st_mtime for path in self.folder.iterdir() if int(path.name) not in ended}
        first = min(beats, key=lambda rank: beats[rank], default=None)
        is_late = first is not None and now - max(beats[first], self._since) > self.timeout_s
        return first if is_late else None

    def forget(self) -> None:
        """Before the processes start anew."""
        for path in self.folder.iterdir():
            path.unlink()
