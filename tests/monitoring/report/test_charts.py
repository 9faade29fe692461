"""Curves: thinned without losing a spike, scaled and ticked so that they can be read."""

import re
from math import inf, nan

import numpy as np
import pytest

from monitoring.report.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Chart,
    Series,
    chart,
    compact,
    series,
    thin,
)


def drawn(values: list[float], **more: object) -> Chart:
    made = chart("title", [Series("a", np.arange(len(values), dtype=float), np.array(values))], **more)  # type: ignore[arg-type]
    assert made is not None
    return made


def points_of(made: Chart) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for line in made.lines for x, y in re.findall(r"[ML]([-\d.]+) ([-\d.]+)", line.path)]


def test_thinning_keeps_the_extremes_and_the_order() -> None:
    values = np.sin(np.arange(10_000) / 500)
    values[[3333, 7777]] = [50.0, -40.0]
    steps, kept = thin(np.arange(10_000.0), values)
    assert len(kept) <= 300 and kept.max() == 50.0 and kept.min() == -40.0
    assert (np.diff(steps) > 0).all() and (values[steps.astype(int)] == kept).all()


def test_few_points_are_kept_as_they_are() -> None:
    steps, kept = thin(np.arange(300.0), np.full(300, nan))
    assert len(steps) == len(kept) == 300


def test_a_long_stretch_that_is_not_finite_stays_a_gap() -> None:
    values = np.ones(3000)
    values[1000:2000] = nan
    made = drawn(values.tolist())
    assert made.lines[0].path.count("M") == 2 and 1 <= len(made.not_finite) <= 60


@pytest.mark.parametrize(
    "values",
    [
        [1.0], [0.5, 0.5], [0.0, 0.0], [nan], [nan, inf], [-3.0, -3.0], [1e-9, 1e9], [0.0, 1e30], [-1.0, 1.0, nan],
        [5.0, 5.0 + 1e-12], [0.5, 0.5, nan],
    ],
)  # fmt: skip
def test_every_line_lies_within_its_frame(values: list[float]) -> None:
    made = drawn(values)
    ticks = [(made.left, tick.at) for tick in made.y_ticks] + [(tick.at, made.top) for tick in made.x_ticks]
    for x, y in points_of(made) + ticks:
        assert LEFT <= x <= WIDTH - RIGHT and TOP <= y <= HEIGHT - BOTTOM


@pytest.mark.parametrize(
    ("values", "is_log"),
    [
        ([0.1, 10.0], True), ([1.0, 10.0], False), ([0.0, 100.0], False), ([-1.0, 100.0], False),
        ([0.1, 10.0, nan], True), ([0.5, 0.5], False),
    ],
)  # fmt: skip
def test_wide_positive_values_get_a_logarithmic_scale(values: list[float], is_log: bool) -> None:
    ticks = [float(t.label) for t in drawn(values).y_ticks]
    steps = np.diff(ticks)
    assert (not np.allclose(steps, steps[0])) == is_log


def test_values_beyond_given_limits_stay_in_sight() -> None:
    assert [y for _, y in points_of(drawn([-1.0, 2.0], limits=(0.0, 1.0)))] == [HEIGHT - BOTTOM, TOP]


def test_a_point_between_gaps_is_seen_as_a_dot() -> None:
    made = drawn([nan, 1.0, nan])
    assert [dot.label for dot in made.lines[0].dots] == ["a 1 @ 1"]


def test_nothing_to_show_is_no_chart() -> None:
    assert chart("empty", [series("a", [{"step": 1}], "losses", "a")]) is None


def test_a_series_takes_the_records_that_have_it() -> None:
    records = [{"step": 1, "l": {"a": 1}}, {"step": 2, "l": {}}, {"step": 3, "l": None}, {"step": 4, "l": {"a": "x"}}]
    assert series("a", records, "l", "a").steps.tolist() == [1.0]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.25, "0.25"), (1e-4, "1e-4"), (8.03e-05, "8.03e-5"), (20_000.0, "20k"), (1.5e6, "1.5M"), (1234.0, "1234"),
        (0.0, "0"), (nan, "NaN"), (inf, "inf"), (0.1 + 0.2, "0.3"), (99999.0, "100k"),
    ],
)  # fmt: skip
def test_numbers_are_short(value: float, text: str) -> None:
    assert compact(value) == text
