"""Words that attention skipped or began anew, on alignments drawn by hand."""

import numpy as np
import pytest

from speech.attention_words import WordFaults, word_faults, word_numbers

SYMBOLS = list("it is, so")  # three words: symbols 0-1, 3-4, 7-8


def attended(path: list[int], n_symbols: int = len(SYMBOLS)) -> np.ndarray:
    """[T_dec, T_text] with all weight on these symbols."""
    alignment = np.zeros((len(path), n_symbols))
    alignment[np.arange(len(path)), path] = 1.0
    return alignment


def test_words_end_at_spaces_and_signs_have_no_word() -> None:
    assert word_numbers(SYMBOLS).tolist() == [0, 0, -1, 1, 1, -1, -1, 2, 2]
    assert word_numbers(["{HH}", "{AH0}", " ", "'", "{L}", "."]).tolist() == [0, 0, -1, -1, 1, -1]


@pytest.mark.parametrize(
    ("path", "skipped", "repeated"),
    [
        ([0, 0, 1, 1, 2, 3, 3, 4, 4, 5, 6, 7, 7, 8, 8], (), ()),
        ([0, 0, 1, 1, 2, 2, 6, 7, 7, 8, 8, 8], (1,), ()),
        ([0, 0, 1, 1, 3, 3, 4, 4, 5], (2,), ()),  # stopped before the end
        ([0, 0, 1, 1, 3, 3, 4, 4, 0, 0, 1, 1, 3, 3, 4, 4, 7, 7, 8, 8], (), (0,)),
        ([0, 0, 1, 1, 3, 3, 4, 4, 1, 7, 7, 8, 8], (), ()),  # one step back is a flicker
        ([0, 0, 1, 1, 3, 3, 7, 7, 8, 8], (), ()),  # half of the second word was read
    ],
    ids=["in order", "one left out", "cut short", "begun anew", "flicker", "half read"],
)
def test_faults_are_counted_by_word(path: list[int], skipped: tuple[int, ...], repeated: tuple[int, ...]) -> None:
    assert word_faults(attended(path), SYMBOLS) == WordFaults(3, skipped, repeated)


@pytest.mark.parametrize("alignment", [np.zeros((0, len(SYMBOLS))), np.full((5, len(SYMBOLS)), np.nan)])
def test_an_alignment_that_is_none_read_nothing(alignment: np.ndarray) -> None:
    assert word_faults(alignment, SYMBOLS) == WordFaults(3, (0, 1, 2), ())
