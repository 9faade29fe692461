"""Parallel coordinates as the numbers that an SVG needs: a line for each trial through its values. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial

from monitoring.report.charts import compact
from smart_tuner.trial_queue import origin_of
from tools import format_value

GAP, HEIGHT, LEFT, TOP, BOTTOM = 110.0, 320.0, 60.0, 44.0, 24.0  # units of the SVG
GOOD_SHARE = 0.25  # of the trials are drawn as good ones


@dataclass(frozen=True)
class ParallelAxis:
    """labels: (y, text) from its top to its bottom."""

    name: str
    x: float
    labels: tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class ParallelLine:
    path: str
    label: str
    kind: str  # "best", "good" or "other"


@dataclass(frozen=True)
class Parallel:
    width: float
    height: float
    top: float
    bottom: float
    axes: tuple[ParallelAxis, ...]
    lines: tuple[ParallelLine, ...]  # the best last, so that it lies on top


def parallel(ranked: Sequence[FrozenTrial], names: Sequence[str], *, best: FrozenTrial | None) -> Parallel:
    """ranked: the best first; each has a value. names: the parameters from left to right; the value comes last."""
    scales = [_scale_of(name, ranked) for name in names]
    values = [float(trial.value or 0.0) for trial in ranked]
    low, high = min(values), max(values)
    axes = [_axis(name, scale, place) for place, (name, scale) in enumerate(zip(names, scales, strict=True))]
    axes.append(ParallelAxis("value", LEFT + GAP * len(names), ((TOP, f"{high:.3g}"), (HEIGHT - BOTTOM, f"{low:.3g}"))))
    lines = []
    for rank, trial in enumerate(ranked):
        shares = [scale.share(trial.params.get(name)) for name, scale in zip(names, scales, strict=True)]
        shares.append((values[rank] - low) / (high - low) if high > low else 0.5)
        is_best = best is not None and trial.number == best.number
        kind = "best" if is_best else "good" if rank < GOOD_SHARE * len(ranked) else "other"
        lines.append(ParallelLine(_path(shares), f"{origin_of(trial)}: {values[rank]:.4f}", kind))
    width = LEFT + GAP * len(names) + LEFT
    return Parallel(width, HEIGHT, TOP, HEIGHT - BOTTOM, tuple(axes), tuple(reversed(lines)))


@dataclass(frozen=True)
class _Scale:
    """Where values lie between the bottom (0) and the top (1) of an axis: of choices, or of a range."""

    choices: tuple[Any, ...]
    low: float
    high: float
    is_log: bool

    def share(self, value: Any) -> float | None:
        if value is None:
            return None
        if self.choices:
            return (self.choices.index(value) + 0.5) / len(self.choices)
        low, high, at = (math.log(x) if self.is_log else x for x in (self.low, self.high, float(value)))
        return (at - low) / (high - low) if high > low else 0.5


def _scale_of(name: str, trials: Sequence[FrozenTrial]) -> _Scale:
    distribution: BaseDistribution = next(t.distributions[name] for t in trials if name in t.distributions)
    if isinstance(distribution, CategoricalDistribution):
        return _Scale(tuple(distribution.choices), 0.0, 1.0, False)
    low, high = float(distribution.low), float(distribution.high)  # type: ignore[attr-defined]
    return _Scale((), low, high, bool(getattr(distribution, "log", False)))


def _axis(name: str, scale: _Scale, place: int) -> ParallelAxis:
    if scale.choices:
        labels = [(_y(scale.share(choice) or 0.0), format_value(choice)) for choice in scale.choices]
    else:
        labels = [(TOP, compact(scale.high)), (HEIGHT - BOTTOM, compact(scale.low))]
    return ParallelAxis(name, LEFT + GAP * place, tuple(labels))


def _y(share: float) -> float:
    return round(HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP), 1)


def _path(shares: Sequence[float | None]) -> str:
    """With a gap where a parameter did not act."""
    parts, is_open = [], False
    for place, share in enumerate(shares):
        if share is not None:
            parts.append(f"{'L' if is_open else 'M'}{LEFT + GAP * place:g} {_y(share):g}")
        is_open = share is not None
    return "".join(parts)
