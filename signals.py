"""SIGTERM and SIGINT as a request to stop."""

import signal
from types import FrameType
from typing import Any

from run_log import LOG


class StopRequest:
    """Turns SIGTERM and SIGINT into a request that the loop honours after the step; a second one ends at once."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._old: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        for number in (signal.SIGTERM, signal.SIGINT):
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
