"""What a person sees while training: a bar with ETA on a terminal, plain lines elsewhere, and `train.log`."""

import logging
import sys
import time
from collections.abc import Callable
from math import nan
from pathlib import Path

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from common.durations import Pace, duration
from common.log import LOG
from run_directory.metrics_log import RunInfo
from run_directory.records import URGENT_KINDS, EvalRecord, Event, Record, StepRecord

PLAIN_EVERY_S = 10.0  # between lines about steps where there is no terminal
QUIET_EVENTS = frozenset({"saved"})  # in events.jsonl and train.log, not on the console

CONSOLE = Console(stderr=True)


def configure_logging(log_directory: Path | None = None) -> None:
    """Messages to the console (through rich, so that they don't tear the bar) and to `train.log`."""
    LOG.setLevel(logging.INFO)
    LOG.propagate = False
    for old in list(LOG.handlers):
        LOG.removeHandler(old)
        old.close()
    shown: logging.Handler
    if CONSOLE.is_terminal:
        shown = RichHandler(console=CONSOLE, show_path=False, show_level=False, markup=False, highlighter=None)
    else:
        shown = logging.StreamHandler(sys.stderr)
    shown.addFilter(lambda record: getattr(record, "kind", "") not in QUIET_EVENTS)
    LOG.addHandler(shown)
    if log_directory is not None:
        log_directory.mkdir(parents=True, exist_ok=True)
        file = LogFile(log_directory / "train.log", encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        LOG.addHandler(file)


class LogFile(logging.FileHandler):
    """A full disk costs it lines, which is said once, and not the console a traceback for each of them."""

    is_refused = False

    def handleError(self, record: logging.LogRecord) -> None:
        if not self.is_refused:
            self.is_refused = True
            LOG.warning("%s can't be written: it lacks lines from here on, until there is room", self.baseFilename)


class ConsoleObserver:
    """Shows records as they come. Runs in the training thread; it only writes to a terminal."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._spoke_at = 0.0
        self._alignment = "-"

    def on_start(self, run: RunInfo) -> None:
        self._total, self._pace = run.total_steps, Pace(run.first_step)
        if CONSOLE.is_terminal:
            self._bar = Progress(
                TextColumn("step {task.completed:.0f}/{task.total}"),
                BarColumn(),
                TextColumn("{task.fields[eta]} left"),
                TextColumn("{task.fields[status]}"),
                console=CONSOLE,
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task("", total=run.total_steps, completed=run.first_step, eta="?", status="")

    def on_record(self, record: Record) -> None:
        if isinstance(record, StepRecord):
            self._on_step(record)
        elif isinstance(record, EvalRecord):
            self._on_eval(record)
        else:
            self._on_event(record)

    def _on_step(self, record: StepRecord) -> None:
        self._pace.update(record.step)
        status = (
            f"loss={record.losses.get('total', nan):.3f} mel={record.losses.get('mel_post', nan):.3f} "
            f"grad={record.grad_norm:.2f} lr={record.learning_rate:.1e} alignment={self._alignment} "
            f"{record.frames_per_s:.0f} frames/s"
        )
        eta = self._pace.eta(self._total)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=record.step, eta=eta, status=status)
        elif time.monotonic() - self._spoke_at >= PLAIN_EVERY_S or record.step == self._total:
            self._spoke_at = time.monotonic()
            LOG.info("step=%d/%s %s %.2f s/step eta=%s", record.step, self._total or "?", status, record.step_s, eta)

    def _on_eval(self, record: EvalRecord) -> None:
        free = record.free_running
        self._alignment = f"{free['alignment']:.2f}" if "alignment" in free else "-"
        spoken = (
            f"alignment={self._alignment} coverage={free['coverage']:.2f} stops={free['stop_rate']:.2f} "
            f"mel_distance={free['mel_distance']:.3f} "
            if free
            else ""
        )
        LOG.info(
            "step=%d validation %smel_post=%.3f score=%.3f%s (%.1f s)",
            record.step,
            spoken,
            record.losses.get("mel_post", float("nan")),
            record.score,
            " best" if record.is_best else "",
            record.duration_s,
        )

    def _on_event(self, event: Event) -> None:
        LOG.log(
            logging.WARNING if event.kind in URGENT_KINDS else logging.INFO,
            "step=%d %s: %s",
            event.step,
            event.kind,
            event.message,
            extra={"kind": event.kind},
        )

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()


def counted_progress(label: str) -> Callable[[int, int], None]:
    """A `progress(done, total)` callback that shows a bar with ETA on a terminal, or a line every few seconds."""
    bar = Progress(
        TextColumn(label),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TextColumn("{task.fields[eta]} left"),
        console=CONSOLE,
        transient=True,
    )
    task = bar.add_task("", total=None, eta="?")
    began = time.monotonic()
    spoke_at = [began]

    def show(done: int, total: int) -> None:
        now = time.monotonic()
        eta = duration((now - began) / done * (total - done)) if done else "?"
        if CONSOLE.is_terminal:
            if not bar.live.is_started:
                bar.start()
            bar.update(task, total=total, completed=done, eta=eta)
            if done >= total:
                bar.stop()
        elif now - spoke_at[0] >= PLAIN_EVERY_S or done == total:
            spoke_at[0] = now
            LOG.info("%s %d/%d eta=%s", label, done, total, eta)

    return show
