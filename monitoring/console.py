"""What a person sees while training: a bar with ETA on a terminal, plain lines elsewhere, and `train.log`."""

import logging
import time
from math import nan

from rich.progress import BarColumn, Progress, TaskID, TextColumn

from common.durations import Pace, duration
from common.log import LOG
from monitoring.logging_setup import CONSOLE
from monitoring.observer import RunInfo
from monitoring.progress_bar import PLAIN_EVERY_S
from run_directory.records import URGENT_KINDS, EvalRecord, Event, Record, StepRecord

LONGEST_SILENCE_S = 60.0  # where there is no terminal
SHOWN_AT_ONCE = 2  # steps: that training began, and how long it takes


class EarlyPace:
    """How long steps take before the first record. The first one warms up, and tells nothing of the others."""

    def __init__(self, first_step: int) -> None:
        self.first_step, self.n_steps = first_step, 0
        self.began = self.warm_at = time.monotonic()

    def said(self, step: int, total: int | None) -> str:
        """In words, of the step that is just done."""
        now, self.n_steps = time.monotonic(), step - self.first_step
        if self.n_steps <= 1:
            self.warm_at = now
            return f"the first step took {now - self.began:.1f} s"
        seconds = (now - self.warm_at) / (self.n_steps - 1)
        return f"{seconds:.2f} s/step" + (f" eta={duration((total - step) * seconds)}" if total else "")


class ConsoleObserver:
    """Shows records as they come, and the steps before the first of them. Runs in the training thread."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._spoke_at = self._counted_at = 0.0
        self._alignment = "-"

    def on_start(self, run: RunInfo) -> None:
        self._total, self._pace = run.total_steps, Pace(run.first_step)
        self._early: EarlyPace | None = EarlyPace(run.first_step)
        self._of = f"/{run.total_steps}" if run.total_steps else ""  # a run may have no end that is known
        if CONSOLE.is_terminal:
            self._bar = Progress(
                TextColumn("step {task.completed:.0f}{task.fields[of]}"),
                BarColumn(),
                TextColumn("{task.fields[left]}"),
                TextColumn("{task.fields[status]}"),
                console=CONSOLE,
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(
                "", total=run.total_steps, completed=run.first_step, of=self._of, left="", status=""
            )

    def on_record(self, record: Record) -> None:
        if isinstance(record, StepRecord):
            self._on_step(record)
        elif isinstance(record, EvalRecord):
            self._on_eval(record)
        else:
            self._on_event(record)

    def on_step(self, step: int) -> None:
        """A sign of life where no record comes yet, or for long."""
        if self._early is None:
            if self._bar is not None and self._task is not None:
                self._bar.update(self._task, completed=step)
            elif time.monotonic() - max(self._spoke_at, self._counted_at) >= LONGEST_SILENCE_S:
                self._counted_at = time.monotonic()
                LOG.info("step=%d%s", step, self._of)
            return
        said = self._early.said(step, self._total)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=step, status=said)
        elif self._early.n_steps <= SHOWN_AT_ONCE or time.monotonic() - self._counted_at >= PLAIN_EVERY_S:
            self._counted_at = time.monotonic()
            LOG.info("step=%d%s %s", step, self._of, said)

    def _on_step(self, record: StepRecord) -> None:
        self._pace.update(record.step)
        self._early = None
        status = (
            f"loss={record.losses.get('total', nan):.3f} mel={record.losses.get('mel_post', nan):.3f} "
            f"grad={record.grad_norm:.2f} lr={record.learning_rate:.1e} alignment={self._alignment} "
            f"{record.frames_per_s:.0f} frames/s"
        )
        eta = self._pace.eta(self._total) if self._total else ""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=record.step, left=f"{eta} left" if eta else "", status=status)
        elif time.monotonic() - self._spoke_at >= PLAIN_EVERY_S or record.step == self._total:
            self._spoke_at = time.monotonic()
            left = f" eta={eta}" if eta else ""
            LOG.info("step=%d%s %s %.2f s/step%s", record.step, self._of, status, record.step_s, left)

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
