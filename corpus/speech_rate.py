"""Which recordings are too long or too short for their text, by what the rest of the corpus does.

Seconds of sound are explained by what the text holds (letters, vowels, words, pauses) with weights fitted to the corpus
itself, robustly, so that wrong lines do not move them. What is left over, as a ratio of measured to expected seconds,
is within 0.75 and 1.3 for nearly all lines of real corpora. A third to a half of the texts that belong to another
recording are found by this alone, and every one that is far too long or short.
"""

import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from corpus.findings import Finding, error, warning

LEAST_FITTED = 50  # lines of a speaker; with fewer only seconds a symbol are compared
FIT_ROUNDS = 20
LEAST_SPREAD = 0.08  # natural logarithm; the most even real corpora: 0.063 and 0.099
ODD_DEVIATIONS = 4.0  # of two real corpora, 0 of 620 and 3 of 1132 lines lie farther out
LEAST_ODD_RATIO = 1.4
ODD_RATIO_OF_FEW = 1.7  # with few lines the spread is not known well; a clip played twice is over it
IMPOSSIBLE_RATIO = 4.0  # an error beyond this
LEAST_EXPECTED_S = 0.05
_LATIN_VOWELS = "aeiouy"
_CYRILLIC_VOWELS = "\u0430\u0435\u0438\u043e\u0443\u044b\u044d\u044e\u044f\u0456"
_GREEK_VOWELS = "\u03b1\u03b5\u03b7\u03b9\u03bf\u03c5\u03c9"
_VOWELS = frozenset(_LATIN_VOWELS + _CYRILLIC_VOWELS + _GREEK_VOWELS)
_PAUSES = frozenset(",.;:!?\u2026\u2014\u2013-")


@dataclass(frozen=True)
class Spoken:
    """One text and how long the sound of it lasts, pauses left out; speaker "" where none is named."""

    text: str
    sound_s: float
    speaker: str = ""


@dataclass(frozen=True)
class Rate:
    """What one line is judged by: the seconds this corpus takes for such a text, measured over expected, and how many
    spreads of the corpus that is off."""

    expected_s: float
    ratio: float
    deviations: float
    is_odd: bool


def check_speech_rate(lines: Sequence[Spoken]) -> list[Finding | None]:
    """A finding for each line whose text and sound don't fit, None for the others, in the order given.

    One line alone has nothing to be compared with.
    """
    return [_judged(line, rate) for line, rate in zip(lines, speech_rates(lines), strict=True)]


def _judged(line: Spoken, rate: Rate | None) -> Finding | None:
    if rate is None or not rate.is_odd:
        return None
    far = max(rate.ratio, 1 / rate.ratio)
    say = error if far > IMPOSSIBLE_RATIO else warning
    return say(
        "speech rate",
        f"{line.sound_s:.1f} s of sound for {len(line.text)} characters, where this corpus takes "
        f"{rate.expected_s:.1f} s: too {'long' if rate.ratio > 1 else 'short'} by a factor of {far:.1f}",
        "listen whether this text is what is said",
        value=rate.ratio,
        limit=IMPOSSIBLE_RATIO if rate.ratio > 1 else 1 / IMPOSSIBLE_RATIO,
    )


def speech_rates(lines: Sequence[Spoken]) -> list[Rate | None]:
    """How each line compares with its speaker; None where there is no sound, text, or other line."""
    rates: list[Rate | None] = [None] * len(lines)
    usable = [i for i, line in enumerate(lines) if line.sound_s > 0 and line.text.strip()]
    for group in _groups(lines, usable):
        if len(group) < 2:
            continue
        seconds = np.array([lines[i].sound_s for i in group])
        contents = np.array([_contents(lines[i].text) for i in group], dtype=float)
        for i, rate in zip(group, _compared(contents, seconds), strict=True):
            rates[i] = rate
    return rates


def _groups(lines: Sequence[Spoken], usable: Sequence[int]) -> list[list[int]]:
    """Lines by speaker; the speakers with too few for a fit of their own together."""
    by_speaker: defaultdict[str, list[int]] = defaultdict(list)
    for i in usable:
        by_speaker[lines[i].speaker].append(i)
    large = [group for group in by_speaker.values() if len(group) >= LEAST_FITTED]
    return [*large, [i for group in by_speaker.values() if len(group) < LEAST_FITTED for i in group]]


def _compared(contents: np.ndarray, seconds: np.ndarray) -> list[Rate]:
    """contents [N, 5], seconds [N]."""
    has_fit = len(seconds) >= LEAST_FITTED
    expected = _fitted(contents, seconds) if has_fit else _proportional(contents, seconds)
    off = np.log(seconds / expected)
    off -= np.median(off)
    spread = max(LEAST_SPREAD, 1.4826 * float(np.median(np.abs(off))))
    limit = max(spread * ODD_DEVIATIONS, np.log(LEAST_ODD_RATIO if has_fit else ODD_RATIO_OF_FEW))
    return [
        Rate(float(s / np.exp(o)), float(np.exp(o)), float(abs(o) / spread), is_odd=bool(abs(o) > limit))
        for s, o in zip(seconds, off, strict=True)
    ]


def _proportional(contents: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    symbols = np.maximum(contents[:, 1:].sum(axis=1) - contents[:, 2], 1.0)  # vowels are letters too
    return symbols * float(np.median(seconds / symbols))


def _fitted(contents: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Expected seconds [N]: least squares of relative errors, lines that are far off weighing less each round."""
    weights = np.ones(len(seconds))
    expected = _proportional(contents, seconds)
    for _ in range(FIT_ROUNDS):
        off = np.log(seconds / expected)
        spread = max(LEAST_SPREAD, 1.4826 * float(np.median(np.abs(off - np.median(off)))))
        weights = 1 / np.sqrt(1 + np.square((off - np.median(off)) / (2 * spread)))  # Cauchy's
        scaled = contents * (weights / seconds)[:, None]
        solution = np.linalg.lstsq(scaled, weights, rcond=None)[0]
        expected = np.maximum(contents @ solution, LEAST_EXPECTED_S)
    return expected


def _contents(text: str) -> tuple[int, int, int, int, int]:
    """(1, letters and signs, vowels among them, words, pauses inside)."""
    inner = text.strip().rstrip("".join(_PAUSES))
    n_words = len(inner.split())
    n_pauses = sum(char in _PAUSES for char in inner)
    n_vowels = sum(_is_vowel(char) for char in inner)
    return 1, len(inner) - n_pauses - max(0, n_words - 1), n_vowels, n_words, n_pauses


@lru_cache(maxsize=4096)
def _is_vowel(char: str) -> bool:
    return unicodedata.normalize("NFD", char)[0].lower() in _VOWELS
