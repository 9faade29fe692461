"""Curves as the numbers that an SVG needs: thinned, scaled, ticked. Pure; the template draws them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

WIDTH, HEIGHT = 440.0, 240.0  # units of the SVG; a phone shows them at about 0.8 of this
LEFT, RIGHT, TOP, BOTTOM = 52.0, 10.0, 10.0, 24.0
MAX_POINTS = 300  # a line; more than pixels of a phone
MAX_MARKS = 60
FEW_DECADES = 300.0
LOG_RATIO = 20.0  # values that span more than this get a logarithmic scale


@dataclass(frozen=True)
class Series:
    """A line over training steps. dotted: few points, each to be seen and named."""

    name: str
    steps: np.ndarray  # [N] ascending
    values: np.ndarray  # [N], may hold NaN and infinity
    dotted: bool = False


@dataclass(frozen=True)
class Dot:
    x: float
    y: float
    label: str


@dataclass(frozen=True)
class Line:
    """One drawn series: `path` is an SVG path, with gaps where values are not finite."""

    name: str
    path: str
    latest: str  # the newest value, for the legend
    dots: tuple[Dot, ...] = ()


@dataclass(frozen=True)
class Tick:
    at: float
    label: str


@dataclass(frozen=True)
class Chart:
    """All an SVG needs of one picture with several lines."""

    title: str
    hint: str
    lines: tuple[Line, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    not_finite: tuple[float, ...] = ()  # x of values that are no numbers
    alerts: tuple[float, ...] = ()  # x of what a person should see
    width: float = field(default=WIDTH, init=False)
    height: float = field(default=HEIGHT, init=False)
    left: float = field(default=LEFT, init=False)
    right: float = field(default=WIDTH - RIGHT, init=False)
    top: float = field(default=TOP, init=False)
    bottom: float = field(default=HEIGHT - BOTTOM, init=False)


def series(name: str, records: Sequence[Mapping[str, object]], *path: str, dotted: bool = False) -> Series:
    """`series("total", steps, "losses", "total")`: what stands there in each record that has it."""
    steps, values = [], []
    for record in records:
        value: object = record
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        if isinstance(value, int | float):
            steps.append(record["step"])
            values.append(value)
    return Series(name, np.array(steps, dtype=float), np.array(values, dtype=float), dotted)


def thin(steps: np.ndarray, values: np.ndarray, *, points: int = MAX_POINTS) -> tuple[np.ndarray, np.ndarray]:
    """steps [n], values [n] -> at most `points` of them: the lowest and the highest of each stretch, so that no spike
    is lost.
    """
    if len(values) <= points:
        return steps, values
    edges = np.linspace(0, len(values), points // 2 + 1).astype(int)
    kept: list[int] = []
    for first, end in zip(edges[:-1], edges[1:], strict=True):
        finite = first + np.flatnonzero(np.isfinite(values[first:end]))
        if len(finite):
            part = values[finite]
            kept.extend(sorted({int(finite[part.argmin()]), int(finite[part.argmax()])}))
        else:
            kept.append(int(first))
    return steps[kept], values[kept]


def chart(
    title: str,
    lines: Iterable[Series],
    *,
    hint: str = "",
    limits: tuple[float, float] | None = None,
    alerts: Sequence[float] = (),
) -> Chart | None:
    """None if there is nothing to show. limits: of the vertical axis; else those of the values."""
    shown = [line for line in lines if len(line.values)]
    if not shown:
        return None
    x = _Scale(*_range(np.concatenate([line.steps for line in shown])), LEFT, WIDTH - RIGHT)
    y = _vertical(np.concatenate([line.values for line in shown]), limits)
    missing = np.unique(np.concatenate([line.steps[~np.isfinite(line.values)] for line in shown]))
    return Chart(
        title,
        hint,
        tuple(_line(line, x, y) for line in shown),
        tuple(Tick(x.at(v), compact(v)) for v in _linear_ticks(x.low, x.high, 7)),
        tuple(Tick(y.at(v), compact(v)) for v in (_log_ticks if y.is_log else _linear_ticks)(y.low, y.high, 5)),
        not_finite=_spread(x.at(v) for v in missing),
        alerts=_spread(x.at(v) for v in alerts if x.low <= v <= x.high),
    )


def compact(value: float) -> str:
    """As few characters as an axis needs: 0.25, 3e-5, 20k."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "inf"
    if abs(value) >= 10_000:
        return f"{value / 1e6:.3g}M" if abs(value) >= 1e6 else f"{value / 1e3:.3g}k"
    if value and abs(value) < 1e-3:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float
    start: float  # where `low` lies in the picture
    end: float
    is_log: bool = False

    def at(self, value: float) -> float:
        if self.is_log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)


def _range(values: np.ndarray) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    if low == high:  # one value: zero and it are in sight
        return (min(0.0, 2 * low), max(0.0, 2 * low)) if low else (-1.0, 1.0)
    return low, high


def _vertical(values: np.ndarray, limits: tuple[float, float] | None) -> _Scale:
    if limits is not None:
        return _Scale(*limits, HEIGHT - BOTTOM, TOP)
    low, high = _range(values)
    finite = values[np.isfinite(values)]
    if len(finite) and finite.min() > 0 and finite.max() > LOG_RATIO * finite.min():
        return _Scale(low, high, HEIGHT - BOTTOM, TOP, is_log=True)
    starts_at_zero = 0 < low < 0.4 * high  # where that costs little height
    return _Scale(0.0 if starts_at_zero else low, high, HEIGHT - BOTTOM, TOP)


def _line(line: Series, x: _Scale, y: _Scale) -> Line:
    latest = compact(float(f"{line.values[-1]:.3g}"))
    steps, values = thin(line.steps, line.values)
    points: list[tuple[float, float] | None] = [
        (x.at(s), _clamp(y.at(v))) if math.isfinite(v) and (v > 0 or not y.is_log) else None
        for s, v in zip(steps.tolist(), values.tolist(), strict=True)
    ]
    dots = tuple(
        Dot(*point, f"{line.name} {value:.4g} @ {step:.0f}")
        for point, step, value in zip(points, steps.tolist(), values.tolist(), strict=True)
        if point is not None
    )
    return Line(line.name, _path(points), latest, dots if line.dotted or len(dots) == 1 else ())


def _clamp(y: float) -> float:
    """Values beyond given limits stay within sight."""
    return min(max(y, TOP), HEIGHT - BOTTOM)


def _path(points: Sequence[tuple[float, float] | None]) -> str:
    parts, is_open = [], False
    for point in points:
        if point is not None:
            parts.append(f"{'L' if is_open else 'M'}{point[0]:g} {point[1]:g}")
        is_open = point is not None
    return "".join(parts)


def _linear_ticks(low: float, high: float, n: int) -> list[float]:
    """At most about n round numbers within [low, high]."""
    raw = (high - low) / n
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(m * magnitude for m in (1, 2, 5, 10) if m * magnitude >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float, n: int) -> list[float]:
    """Powers of ten, and 2 and 5 times them where those are few."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    every, multiples = max(1, len(decades) // n), (1, 2, 5) if high < FEW_DECADES * low else (1,)
    found = [m * 10.0**k for k in decades[::every] for m in multiples]
    return [v for v in found if low <= v <= high]


def _spread(positions: Iterable[float]) -> tuple[float, ...]:
    """Few enough to draw."""
    found = sorted(set(positions))
    return tuple(found[:: math.ceil(len(found) / MAX_MARKS) or 1])
