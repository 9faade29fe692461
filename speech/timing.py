"""When each symbol and each word of an utterance is said, by its attention."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEAST_WEIGHT = 1e-6  # of attention: a symbol under it counts as not looked at, whatever the rounding


@dataclass(frozen=True)
class TimedText:
    """A stretch of text and when it is said, in seconds."""

    text: str
    start_s: float
    end_s: float

    def shifted(self, by_s: float) -> "TimedText":
        return TimedText(self.text, self.start_s + by_s, self.end_s + by_s)


def monotonic_path(alignment: np.ndarray) -> np.ndarray:
    """The likeliest way through the text that never goes back: [T_dec, T_text] -> symbol of each step [T_dec].

    Dynamic programming over the logarithms of the weights. A step may pass over symbols, as several belong to one
    decoder step where it makes several frames.
    """
    n_steps, n_symbols = alignment.shape
    scores = np.log(np.maximum(alignment, LEAST_WEIGHT))
    came_from = np.zeros((n_steps, n_symbols), dtype=np.int64)
    total = scores[0].copy()
    for t in range(1, n_steps):
        best = np.maximum.accumulate(total)
        # the symbol where that maximum was first reached
        is_new = np.concatenate([[True], best[1:] > best[:-1]])
        came_from[t] = np.maximum.accumulate(np.where(is_new, np.arange(n_symbols), 0))
        total = best + scores[t]
    path = np.empty(n_steps, dtype=np.int64)
    path[-1] = int(total.argmax())
    for t in range(n_steps - 1, 0, -1):
        path[t - 1] = came_from[t, path[t]]
    return path


def symbol_edges(alignment: np.ndarray, *, step_s: float) -> np.ndarray:
    """Symbol n is said from edge n to edge n + 1: [T_dec, T_text] -> seconds [T_text + 1], never falling.

    step_s: sound that a decoder step makes. Symbols that no step rests on share the time of the last one before them
    evenly: at several frames a step, attention has no finer hand.
    """
    path, n_symbols = monotonic_path(alignment), alignment.shape[1]
    rested, first_steps = np.unique(path, return_index=True)
    # symbols before the first one that is rested on are said with it
    anchors = np.concatenate([[0], rested[1:], [n_symbols]])
    times = np.concatenate([[0.0], first_steps[1:] * step_s, [len(path) * step_s]])
    return np.interp(np.arange(n_symbols + 1), anchors, times)


def timed_symbols(symbols: Sequence[str], edges: np.ndarray) -> list[TimedText]:
    """Every symbol with its time."""
    return [TimedText(s, float(a), float(b)) for s, a, b in zip(symbols, edges[:-1], edges[1:], strict=True)]


def timed_words(symbols: Sequence[str], edges: np.ndarray, *, written: Sequence[str]) -> list[TimedText]:
    """Stretches between spaces with their times, punctuation at their ends left out of the time.

    written: the words as a person wrote them, which name the stretches where there are as many; otherwise, as where a
    number is read in several words, they are named as they are read.
    """
    spans = [(a, b) for a, b in _between_spaces(symbols) if any(_is_word(symbol) for symbol in symbols[a:b])]
    names = list(written) if len(written) == len(spans) else ["".join(symbols[a:b]) for a, b in spans]
    trimmed = [_without_punctuation(symbols, span) for span in spans]
    return [
        TimedText(name, float(edges[a]), float(edges[b])) for name, (a, b) in zip(names, trimmed, strict=True)
    ]


def written_words(text: str) -> list[str]:
    """The words of a text as it is written: what has a letter or a digit between spaces."""
    return [word for word in text.split() if any(character.isalnum() for character in word)]


def within(timed: Sequence[TimedText], *, cut_before_s: float, duration_s: float) -> list[TimedText]:
    """The same in a sound that lost so much in front and is so long now."""

    def moved(time_s: float) -> float:
        return min(max(time_s - cut_before_s, 0.0), duration_s)

    return [TimedText(each.text, moved(each.start_s), moved(each.end_s)) for each in timed]


def _is_word(symbol: str) -> bool:
    return any(character.isalnum() for character in symbol)


def _between_spaces(symbols: Sequence[str]) -> list[tuple[int, int]]:
    edges = [-1, *(i for i, symbol in enumerate(symbols) if symbol.isspace()), len(symbols)]
    return [(a + 1, b) for a, b in zip(edges[:-1], edges[1:], strict=True) if b > a + 1]


def _without_punctuation(symbols: Sequence[str], span: tuple[int, int]) -> tuple[int, int]:
    said = [i for i in range(*span) if _is_word(symbols[i])]
    return said[0], said[-1] + 1
