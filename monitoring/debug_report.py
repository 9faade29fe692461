"""Diagnostic reports of a run: `debug/report_00000500.json` for programs, the same as `.md` for people."""

import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from math import isfinite
from typing import Any

import psutil
import torch

from common.files import write_atomic
from monitoring.hints import hints_of
from monitoring.observer import RunInfo
from run_directory.records import EvalRecord, Event, Record, StepRecord

KEPT = 20  # reports
SHOWN_EVENTS = 5


class DebugReport:
    """Writes a report every so many steps, and one of the last steps when the run ends."""

    def __init__(self, *, every: int) -> None:
        self.every = every
        self._steps: list[StepRecord] = []  # since the last report
        self._events: list[Event] = []
        self._before: dict[str, float] = {}  # mean losses of the last report
        self._validation: dict[str, Any] = {}
        self._modules: Mapping[str, Mapping[str, float]] = {}
        self._skipped = 0

    def on_start(self, run: RunInfo) -> None:
        self._run, self._reported = run, run.first_step

    def on_record(self, record: Record) -> None:
        if isinstance(record, EvalRecord):
            names = ("step", "score", "is_best", "losses", "free_running")
            self._validation = {name: getattr(record, name) for name in names}
        if self._steps and self._steps[-1].step // self.every != self._reported // self.every:
            self._write(self._steps[-1].step)  # only now, as the validation of a step comes after its losses
        if isinstance(record, Event):
            self._events.append(record)
        elif isinstance(record, StepRecord):
            self._steps.append(record)
            self._skipped += record.skipped
            self._modules = record.modules or self._modules

    def close(self) -> None:
        if self._steps:
            self._write(self._steps[-1].step)

    def _write(self, step: int) -> None:
        report = plain(self._report(step))
        report["hints"] = hints_of(report, self._run.hparams)
        folder = self._run.directory / "debug"
        path = folder / f"report_{step:08d}.json"
        write_atomic(path, json.dumps(report, indent=1, ensure_ascii=False) + "\n")
        write_atomic(path.with_suffix(".md"), as_text(report))
        for old in sorted(folder.glob("report_*.json"))[:-KEPT]:
            old.unlink()
            old.with_suffix(".md").unlink(missing_ok=True)
        self._before = {name: loss["mean"] for name, loss in report["losses"].items()}
        self._steps, self._events, self._reported = [], [], step

    def _report(self, step: int) -> dict[str, Any]:
        steps, last = self._steps, self._steps[-1]
        losses = {name: self._loss(name) for name in last.losses}
        norms = [record.grad_norm for record in steps if isfinite(record.grad_norm)]
        return {
            "step": step,
            "epoch": last.epoch,
            "time": time.time(),
            "total_steps": self._run.total_steps,
            "records": len(steps),
            "losses": losses,
            "learning_rate": last.learning_rate,
            "gradient": {"mean": mean(norms), "largest": max(norms, default=None)},
            "modules": self._modules,
            "speed": {
                name: mean([getattr(record, name) for record in steps])
                for name in ("step_s", "frames_per_s", "data_wait", "padding")
            },
            "memory": memory(),
            "skipped": {"now": sum(record.skipped for record in steps), "all": self._skipped},
            "validation": self._validation,
            "events": Counter(event.kind for event in self._events),
            "newest_events": [f"{e.step} {e.kind}: {e.message}" for e in self._events[-SHOWN_EVENTS:]],
        }

    def _loss(self, name: str) -> dict[str, float | None]:
        """Mean since the last report, that of the report before, the relative change between, and the newest value."""
        values = [record.losses[name] for record in self._steps if name in record.losses]
        now, before = mean(values), self._before.get(name)
        change = None if now is None or not before else now / before - 1.0
        return {"mean": now, "before": before, "change": change, "newest": values[-1]}


def mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def memory() -> dict[str, float]:
    """Of this process and its device, in MiB."""
    mib = 2**20
    found = {"resident": psutil.Process().memory_info().rss / mib}
    with suppress(ImportError):  # not on Windows
        import resource

        unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
        found["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / mib
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        total = torch.cuda.get_device_properties().total_memory
        found |= {
            "cuda_allocated": torch.cuda.memory_allocated() / mib,
            "cuda_reserved": torch.cuda.memory_reserved() / mib,
            "cuda_peak": torch.cuda.max_memory_allocated() / mib,
            "cuda_peak_share": torch.cuda.max_memory_reserved() / total,
        }
    return found


def plain(value: Any) -> Any:
    """For strict JSON: None where a number is not finite."""
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, float):
        return value if isfinite(value) else None
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


# -- for people -----------------------------------------------------------------------------------------------


def as_text(report: Mapping[str, Any]) -> str:
    """The report on one screen, what to look at first."""
    title = f"# Step {report['step']} of {report['total_steps'] or '?'}, epoch {number(report['epoch'])}"
    sections = {
        "Worth a look": [f"- {hint}" for hint in report["hints"]] or ["Nothing."],
        "Losses": table("loss|mean|before|change|newest", losses_of(report)),
        "Gradient and weights": gradients_of(report),
        "Speed and memory": [f"- {name}: {number(value)}" for name, value in speed_of(report)],
        "Validation": [f"- {name}: {number(value)}" for name, value in judged(report["validation"])] or ["None yet."],
        "Events": [f"- {kind}: {n}" for kind, n in report["events"].items()] or ["None."],
        "The newest events": [f"- {line}" for line in report["newest_events"]] or ["None."],
    }
    return "\n\n".join([title, *(f"## {name}\n\n" + "\n".join(lines) for name, lines in sections.items())]) + "\n"


def number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "-" if value is None else str(value)


def table(head: str, rows: Iterable[Sequence[object]]) -> list[str]:
    names = head.split("|")
    cells = [[number(cell) for cell in row] for row in rows]
    return [f"| {' | '.join(row)} |" for row in [names, ["---"] * len(names), *cells]]


def losses_of(report: Mapping[str, Any]) -> list[list[object]]:
    rows: list[list[object]] = []
    for name, loss in report["losses"].items():
        change = None if loss["change"] is None else f"{loss['change']:+.1%}"
        rows.append([name, loss["mean"], loss["before"], change, loss["newest"]])
    return rows


def gradients_of(report: Mapping[str, Any]) -> list[str]:
    gradient, rows = report["gradient"], report["modules"].items()
    lines = [
        f"Norm before clipping: {number(gradient['mean'])} on average, {number(gradient['largest'])} at most (of means "
        f"over ten steps); {report['skipped']['now']} steps skipped, {report['skipped']['all']} in this launch."
    ]
    modules = table("module|gradient, clipped|weights", [[name, n["gradient"], n["weight"]] for name, n in rows])
    return [*lines, "", *modules] if report["modules"] else lines


def speed_of(report: Mapping[str, Any]) -> list[tuple[str, object]]:
    memories = [(f"memory {name}, {'share' if 'share' in name else 'MiB'}", v) for name, v in report["memory"].items()]
    return [("learning rate", report["learning_rate"]), *report["speed"].items(), *memories]


def judged(validation: Mapping[str, Any]) -> list[tuple[str, object]]:
    if not validation:
        return []
    head = [(name, validation[name]) for name in ("step", "score")]
    return [*head, *validation["free_running"].items(), *validation["losses"].items()]
