"""SIGTERM and SIGINT: in training a request to stop, before and after it an end with one line."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from common.log import LOG

REQUESTS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def end_on_signal() -> Iterator[None]:
    """Until training begins and after it, a signal ends the process: exit code 143 or 130, no traceback.

    Not by an exception: that would wait for the threads that read a large corpus, and be caught in foreign code.
    """
    before = {number: signal.signal(number, _end) for number in REQUESTS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, _: FrameType | None) -> None:
    LOG.warning("signal %d: stopped outside training: nothing to save. Run the same command to resume.", number)
    os._exit(128 + number)


class StopRequest:
    """Turns SIGTERM and SIGINT into a request that the loop honours after the step; a second one ends at once."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._old: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        for number in REQUESTS:
            self._old[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        if self.signal is not None:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.signal = number
        LOG.warning("signal %d: finishing the step, then saving; once more ends at once", number)
