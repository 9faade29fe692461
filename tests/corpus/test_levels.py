"""Claims about recordings that are louder or quieter than the rest."""

import numpy as np
import pytest

from corpus.levels import check_evenness, check_levels


def levels(n: int, *, spread_db: float = 2.0, usual_db: float = -24.0) -> list[float | None]:
    return list(np.random.default_rng(0).normal(usual_db, spread_db, n))


@pytest.mark.parametrize("off_db", [-30.0, -15.0, 15.0])
def test_a_clip_far_from_its_speakers_level_is_named(off_db: float) -> None:
    found = check_levels([*levels(20), -24.0 + off_db, None], ["anna"] * 22)
    assert [finding is not None for finding in found] == [False] * 20 + [True, False]
    assert found[20] is not None and f"{abs(off_db):.0f} dB {'louder' if off_db > 0 else 'quieter'}" in found[20].detail


def test_speakers_and_corpora_may_have_levels_of_their_own() -> None:
    both, speakers = [*levels(20), *levels(20, usual_db=-45.0)], ["anna"] * 20 + ["ben"] * 20
    assert check_levels(both, speakers) == [None] * 40
    assert check_levels([-24.0, -60.0, None], [""] * 3) == [None] * 3, "too few to compare"
    assert check_evenness(both, speakers) is None and check_evenness([], []) is None


def test_a_speaker_without_any_common_level_is_one_finding() -> None:
    scattered: list[float | None] = [-20.0 - 7 * i % 30 for i in range(24)]
    assert check_levels(scattered, ["anna"] * 24) == [None] * 24
    finding = check_evenness([*scattered, *levels(30)], ["anna"] * 24 + ["ben"] * 30)
    assert finding is not None and "the 24 recordings of anna differ in level by" in finding.detail
