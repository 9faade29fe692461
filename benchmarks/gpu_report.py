"""What stages have found out: a line at once for each result, all of it in a JSON file; and their deadlines."""

import json
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

MOST_LINES = 55  # of results, as the table needs some twenty more; the file has all


class StageTimeout(Exception):
    """The stage's time is over. What it has found out so far stays."""


@dataclass
class Report:
    """Results by stage."""

    path: Path
    results: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    n_lines: int = 0
    began: float = field(default_factory=time.monotonic)

    def add(self, stage: str, text: str, **values: Any) -> None:
        """A result: printed, and its values kept."""
        self.results.setdefault(stage, []).append({"text": text, **values})
        self.path.write_text(json.dumps(self.results, indent=1), encoding="utf-8")
        if self.n_lines < MOST_LINES:
            print(f"[{self.elapsed_s:4.0f} s] {stage}: {text}"[:200], flush=True)
        self.n_lines += 1

    def found(self, stage: str) -> list[dict[str, Any]]:
        return self.results.get(stage, [])

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self.began


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """StageTimeout in the main thread when the time is over."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise StageTimeout

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.01))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def run_stage(report: Report, name: str, stage: Callable[[], None], *, seconds: float) -> None:
    """A stage that fails or takes too long is a result too; the next ones follow."""
    try:
        with deadline(seconds):
            stage()
    except StageTimeout:
        report.add(name, f"cut after {seconds:.0f} s")
    except Exception as error:  # noqa: BLE001 - the stages are independent, and the time on a GPU is paid for
        report.add(name, f"FAILED: {in_short(error)}", traceback=traceback.format_exc())


def in_short(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:150]
