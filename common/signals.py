"""SIGTERM, SIGINT and a terminal that closes: in training a request to stop, before and after it an end with one line.
"""

import os
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from common.log import LOG

HANG_UP: int | None = getattr(signal, "SIGHUP", None)  # what a terminal that closes sends; Windows has none
KILL: int = getattr(signal, "SIGKILL", 9)
STREAMS = (1, 2)


def requests() -> tuple[int, ...]:
    """The signals that ask to stop. nohup has the one of the terminal ignored, and so it stays."""
    hears_terminal = HANG_UP is not None and signal.getsignal(HANG_UP) is not signal.SIG_IGN
    return (signal.SIGTERM, signal.SIGINT, *([HANG_UP] if HANG_UP is not None and hears_terminal else []))


def _let_go_of_terminal() -> None:
    """Whatever is said there, or into a pipe of its shell, would fail from now on; a file goes on."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in STREAMS:
        with suppress(OSError):  # one that was never open
            if not stat.S_ISREG(os.fstat(stream).st_mode):
                os.dup2(nowhere, stream)
    os.close(nowhere)


def signal_group(pid: int, number: int) -> None:
    """To a process and all of its group. Windows has neither: there any signal ends this one process at once."""
    with suppress(ProcessLookupError):  # gone already
        if hasattr(os, "killpg"):
            os.killpg(pid, number)
        else:
            os.kill(pid, signal.SIGTERM)


@contextmanager
def end_on_signal() -> Iterator[None]:
    """Until training begins and after it, a signal ends the process: exit code 143, 130 or 129, no traceback.

    Not by an exception: that would wait for the threads that read a large corpus, and be caught in foreign code.
    """
    before = {number: signal.signal(number, _end) for number in requests()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, _: FrameType | None) -> None:
    if number == HANG_UP:
        _let_go_of_terminal()
    LOG.warning("signal %d: stopped outside training: nothing to save. Run the same command to resume.", number)
    os._exit(128 + number)


class StopRequest:
    """Turns these signals into a request that the loop honours after the step; a second one ends at once."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._old: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        for number in requests():
            self._old[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        if number == HANG_UP:
            _let_go_of_terminal()
        elif self.signal is not None:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.signal = self.signal or number  # a shell says twice that the terminal is gone
        LOG.warning("signal %d: finishing the step, then saving; once more ends at once", number)
