"""Words that the attention passed over or went back to: what a listener would miss or hear twice."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from speech.metrics import read_symbols
from text.symbols import needs_sound

SKIPPED_BELOW = 0.5  # share of a word's sounds that was read: less, and nobody understands it
LEAST_STAY = 2  # decoder steps; a single step elsewhere is a flicker of the argmax that nobody hears


@dataclass(frozen=True)
class WordFaults:
    """Words by their number in the text, from 0."""

    n_words: int
    skipped: tuple[int, ...]
    repeated: tuple[int, ...]  # begun anew after a later one


def word_numbers(symbols: Sequence[str]) -> np.ndarray:
    """For each symbol the number of its word; -1 for what has no sound. Words end at spaces. [T_text]"""
    numbers = np.full(len(symbols), -1)
    word, is_inside = -1, False
    for i, symbol in enumerate(symbols):
        if symbol == " ":
            is_inside = False
        elif needs_sound(symbol):
            word += not is_inside
            is_inside = True
            numbers[i] = word
    return numbers


def word_faults(alignment: np.ndarray, symbols: Sequence[str]) -> WordFaults:
    """alignment [T_dec, T_text] of what was read for these symbols. One that is empty or not finite read nothing."""
    numbers = word_numbers(symbols)
    n_words = int(numbers.max(initial=-1)) + 1
    if alignment.size == 0 or not np.isfinite(alignment).all():
        return WordFaults(n_words, tuple(range(n_words)), ())
    is_read = read_symbols(alignment)
    skipped = [word for word in range(n_words) if is_read[numbers == word].mean() < SKIPPED_BELOW]
    return WordFaults(n_words, tuple(skipped), _begun_anew(_stays(numbers[alignment.argmax(axis=1)])))


def _stays(words: np.ndarray) -> list[int]:
    """The words that the attention stayed on, in order; steps on pauses and flickers are left out."""
    spoken = words[words >= 0]
    if len(spoken) == 0:
        return []
    edges = np.flatnonzero(np.diff(spoken)) + 1
    runs = np.split(spoken, edges)
    stays = [int(run[0]) for run in runs if len(run) >= LEAST_STAY]
    return [word for i, word in enumerate(stays) if i == 0 or word != stays[i - 1]]


def _begun_anew(stays: Sequence[int]) -> tuple[int, ...]:
    furthest, repeated = -1, dict[int, None]()
    for word in stays:
        if word < furthest:
            repeated[word] = None
        furthest = max(furthest, word)
    return tuple(repeated)
