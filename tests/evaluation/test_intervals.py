"""Means by weight, and intervals that hold the truth about as often as they say."""

import numpy as np
import pytest

from evaluation.intervals import Share, estimate


def test_errors_of_words_are_weighed_by_the_words() -> None:
    found = estimate([Share(1, 2), Share(0, 8), None], ["a", "b", "c"])
    assert found is not None and (found.value, found.n) == (0.1, 2)


def test_nothing_to_count_is_no_estimate_and_one_text_has_no_interval() -> None:
    assert estimate([None, None], ["a", "b"]) is None
    assert estimate([Share(0, 0)], ["a"]) is None
    alone = estimate([Share(1, 4), Share(2, 4)], ["a", "a"])
    assert alone is not None and (alone.value, alone.low, alone.high) == (0.375, None, None)


def test_readings_of_the_same_text_do_not_narrow_the_interval() -> None:
    values = np.random.default_rng(0).normal(0, 1, 20)
    once = estimate([Share(v) for v in values], [str(i) for i in range(20)])
    thrice = estimate([Share(v) for v in values for _ in range(3)], [str(i) for i in range(20) for _ in range(3)])
    assert once is not None and thrice is not None and once.low is not None and thrice.low is not None
    assert thrice.low == pytest.approx(once.low) and thrice.value == pytest.approx(once.value)


def test_an_interval_at_95_percent_holds_the_truth_in_about_95_of_100_draws() -> None:
    generator, hits, n_draws = np.random.default_rng(1), 0, 200
    for _ in range(n_draws):
        found = estimate([Share(v) for v in generator.exponential(1.0, 40)], [str(i) for i in range(40)])
        assert found is not None and found.low is not None and found.high is not None
        hits += found.low <= 1.0 <= found.high
    assert 0.87 * n_draws <= hits <= 0.99 * n_draws  # skewed draws of 40 fall short of 95 by a few
