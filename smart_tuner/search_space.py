"""The range that a tuned hyperparameter is searched in, as `smart_tuner/config.yaml` and presets write it."""

from dataclasses import dataclass
from typing import Any, Literal

Scale = Literal["integer", "linear", "log"]
SCALES: tuple[Scale, ...] = ("integer", "linear", "log")


class BadRange(ValueError):
    """A range that means nothing; `kind` says why."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


@dataclass(frozen=True)
class Choices:
    """One of a few values."""

    values: tuple[Any, ...]


@dataclass(frozen=True)
class Interval:
    """From low to high, both included."""

    low: Any
    high: Any
    scale: Scale


def read_range(raw: object) -> Choices | Interval:
    """`{choices: [...]}` or `{low:, high:, scale:}`, `default` beside either. Raises BadRange."""
    keys = set(raw) - {"default"} if isinstance(raw, dict) else set()
    if not isinstance(raw, dict) or keys not in ({"choices"}, {"low", "high", "scale"}):
        raise BadRange("range_keys")
    if "choices" in keys:
        return _choices(raw["choices"])
    if raw["scale"] not in SCALES:
        raise BadRange("range_scale")
    ends = (raw["low"], raw["high"])
    if any(isinstance(end, bool) or not isinstance(end, int | float) for end in ends):
        raise BadRange("range_numbers")
    if not ends[0] < ends[1]:
        raise BadRange("range_order")
    if raw["scale"] == "log" and ends[0] <= 0:
        raise BadRange("range_log")
    return Interval(*ends, raw["scale"])


def _choices(values: object) -> Choices:
    if not isinstance(values, list) or len(values) < 2:
        raise BadRange("choices_few")
    if len({repr(value) for value in values}) < len(values):
        raise BadRange("choices_twice")
    return Choices(tuple(values))
