"""Signs of life: each process of a launch moves the time of a file, and the launcher finds the one that has stopped."""

import faulthandler
import os
import signal
import time
from collections.abc import Container, Mapping
from pathlib import Path

FOLDER_VARIABLE = "TACOTRON2_HEARTBEATS"  # environment variable, of the launcher's making: where the files are
LAUNCHER_STOOD_S = 5.0  # between two looks of the launcher: it was stopped too (Ctrl-Z, a suspended job): no hang
# makes a process print where its training is; Windows has none
STACK_TRACE_SIGNAL: int | None = getattr(signal, "SIGUSR1", None)


class Heartbeat:
    """One process's heartbeat. `Heartbeat(None)`: nobody watches."""

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


def heartbeat_of(local_rank: int, environment: Mapping[str, str] = os.environ) -> Heartbeat:
    """Of this process, for the launcher that started it."""
    if FOLDER_VARIABLE not in environment:
        return Heartbeat(None)
    if STACK_TRACE_SIGNAL is not None:
        faulthandler.register(STACK_TRACE_SIGNAL, all_threads=False)
    return Heartbeat(Path(environment[FOLDER_VARIABLE]) / str(local_rank))


class HeartbeatMonitor:
    """The launcher's look at all heartbeats of its machine. timeout_s: a process without one for so long hangs."""

    def __init__(self, folder: Path, *, timeout_s: float) -> None:
        self.folder, self.timeout_s = folder, timeout_s
        self._looked_at = self._since = time.monotonic()

    def find_hung(self, *, ended: Container[int] = ()) -> int | None:
        """The process that has stood still for longest, if that is too long: the others wait for it."""
        now = time.monotonic()
        if now - self._looked_at > LAUNCHER_STOOD_S:
            self._since = now
        self._looked_at = now
        beats = {int(path.name): path.stat().st_mtime for path in self.folder.iterdir() if int(path.name) not in ended}
        first = min(beats, key=lambda rank: beats[rank], default=None)
        is_late = first is not None and now - max(beats[first], self._since) > self.timeout_s
        return first if is_late else None

    def reset(self) -> None:
        """Before the processes start anew."""
        for path in self.folder.iterdir():
            path.unlink()
