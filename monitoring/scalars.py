"""Which curves a record holds, by name: the same names in every tracker."""

from collections.abc import Mapping
from math import isfinite
from typing import Any

PROGRESS = ("grad_norm", "learning_rate", "frames_per_s", "step_s", "data_wait", "padding", "skipped", "epoch")


def _under(group: str, values: Mapping[str, float]) -> dict[str, float]:
    return {f"{group}/{name}": value for name, value in values.items()}


def scalars_of(record: Mapping[str, Any], *, alignment: bool = True) -> dict[str, float]:
    """Of a step or a validation, as `vars(record)` or as a line of metrics.jsonl. What is not finite is left out.

    alignment: whether the scores of free-running speech are wanted.
    """
    if "score" in record:
        values = _under("validation", {**record["losses"], "score": record["score"]})
        values |= _under("free_running", record["free_running"]) if alignment else {}
    else:
        values = _under("train", record["losses"])
        values |= _under("progress", {name: record[name] for name in PROGRESS})
    return {name: float(value) for name, value in values.items() if isfinite(value)}
