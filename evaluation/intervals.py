"""Means over texts, and how far other texts of the same kind might have moved them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
LEVEL = 0.95
SEED = 1


@dataclass(frozen=True)
class Share:
    """One text's part in a mean: `amount` of `weight`, as 2 errors of 9 words; a plain value weighs 1."""

    amount: float
    weight: float = 1.0


@dataclass(frozen=True)
class Estimate:
    """A mean, and its interval at 95 % by bootstrap over texts; both ends None with fewer than two."""

    value: float
    low: float | None
    high: float | None
    n: int


def estimate(shares: Sequence[Share | None], groups: Sequence[str]) -> Estimate | None:
    """Sum of amounts over sum of weights. groups: the text of each share, since readings of one text are no new texts.

    None shares count nothing; None where there is nothing to count.
    """
    known = [(share, group) for share, group in zip(shares, groups, strict=True) if share is not None]
    if not known or sum(share.weight for share, _ in known) == 0:
        return None
    names = list(dict.fromkeys(group for _, group in known))
    place = {name: i for i, name in enumerate(names)}
    totals = np.zeros((len(names), 2))
    for share, group in known:
        totals[place[group]] += (share.amount, share.weight)
    value = float(totals[:, 0].sum() / totals[:, 1].sum())
    low, high = _percentile_interval(totals) if len(names) > 1 else (None, None)
    return Estimate(value, low, high, len(known))


def _percentile_interval(totals: np.ndarray) -> tuple[float | None, float | None]:
    """totals [n, 2] of amounts and weights -> both ends of the interval (Efron and Tibshirani 1993, 13.3)."""
    generator = np.random.default_rng(SEED)
    drawn = totals[generator.integers(len(totals), size=(RESAMPLES, len(totals)))].sum(axis=1)  # [RESAMPLES, 2]
    usable = drawn[drawn[:, 1] > 0]
    if not len(usable):
        return None, None
    low, high = np.quantile(usable[:, 0] / usable[:, 1], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
