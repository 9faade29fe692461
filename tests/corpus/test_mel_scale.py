"""Claims about mels that were made elsewhere."""

import pytest

from corpus.mel_scale import check_mel_scale


@pytest.mark.parametrize(
    ("minimum", "maximum", "words"),
    [
        (-11.51, 1.2, None), (-10.2, -0.2, None), (-9.1, 0.5, None),
        (-5.0, 0.5, "base 10"), (-4.4, -0.1, "base 10"), (-4.0, 4.0, "-4..4"), (0.0, 1.0, "0..1"),
        (-1.0, 1.0, "-1..1"), (-100.0, 0.0, "decibels"), (-23.0, 2.4, "power"), (-1.9, 3.1, "standardised"),
    ],
)  # fmt: skip
def test_mels_on_another_scale_are_named(minimum: float, maximum: float, words: str | None) -> None:
    finding = check_mel_scale(minimum, maximum)
    assert finding is None if words is None else finding is not None and words in finding.detail
