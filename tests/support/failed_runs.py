"""What a run that ended badly leaves: its events, metrics and run.json; and a file that would run code."""

import json
import os
from pathlib import Path
from typing import Any


def event(kind: str, message: str = "", *, attempt: int = 1, step: int = 5, **data: Any) -> dict[str, Any]:
    line = {"time": 1e9, "attempt": attempt, "type": "event", "step": step, "kind": kind, "message": message}
    return {**line, "data": data}


def steps(*, total: float = 1.0, grad_norm: float = 1.0, skipped: int = 0, n: int = 6) -> list[dict[str, Any]]:
    line = {"time": 1e9, "attempt": 1, "type": "step", "losses": {"total": 1.0}, "grad_norm": 1.0, "skipped": 0}
    lines = [{**line, "step": i} for i in range(n)]
    lines[-1].update(losses={"total": total}, grad_norm=grad_norm, skipped=skipped)
    return lines


def evaluation(step: int, alignment: float) -> dict[str, Any]:
    running = {"alignment": alignment}
    line = {"time": 1e9, "attempt": 1, "type": "eval", "step": step, "losses": {}, "score": 1.0 - alignment}
    return {**line, "free_running": running}


def write_run(
    directory: Path,
    events: list[dict[str, Any]],
    metrics: list[dict[str, Any]] = [],  # noqa: B006
    **info: Any,
) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name, lines in (("events.jsonl", events), ("metrics.jsonl", metrics)):
        (directory / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    (directory / "run.json").write_text(json.dumps({"command": ["train.py"], **info}))
    return directory


class Malicious:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("executed",)
