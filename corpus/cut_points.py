"""Where a long recording is cut: at pauses, best at the ends of sentences, into pieces of a good length. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from listeners.recogniser import TimedWord

SENTENCE_END = tuple(".!?\u2026\u3002\uff01\uff1f")
CLAUSE_END = tuple(",;:\u2014\u3001")
CLOSING = "\"')]\u00bb\u201d\u2019"
GOOD_S = 5.0
MARGIN_S = 0.15  # of silence kept on either side, as far as there is some


@dataclass(frozen=True)
class Pause:
    """A stretch without speech, in seconds."""

    start_s: float
    end_s: float

    @property
    def length_s(self) -> float:
        return self.end_s - self.start_s

    @property
    def middle_s(self) -> float:
        return (self.start_s + self.end_s) / 2


@dataclass(frozen=True)
class Piece:
    """One sentence or part of one: from start_s to end_s, margins of silence included, and its words."""

    start_s: float
    end_s: float
    words: tuple[TimedWord, ...]

    @property
    def text(self) -> str:
        return " ".join(" ".join(word.text for word in self.words).split())

    @property
    def length_s(self) -> float:
        return self.end_s - self.start_s


def pauses_between(speech: Sequence[tuple[float, float]], *, length_s: float, least_s: float = 0.2) -> list[Pause]:
    """Pauses of at least least_s between stretches of speech (start, end) in a recording.

    Before the first stretch and after the last there always is one, however short.
    """
    starts = [0.0, *(end for _, end in speech)]
    ends = [*(start for start, _ in speech), length_s]
    found = [Pause(start, max(start, end)) for start, end in zip(starts, ends, strict=True)]
    return [pause for i, pause in enumerate(found) if i in (0, len(found) - 1) or pause.length_s >= least_s]


def plan_pieces(
    words: Sequence[TimedWord], pauses: Sequence[Pause], *, longest_s: float = 12.0, shortest_s: float = 1.0
) -> list[Piece]:
    """Pieces that together hold all words, each cut in a pause, at the least cost.

    Cheap are ends of sentences and about five seconds; dear are cuts inside a sentence, pieces over longest_s or under
    shortest_s. Stretches without words belong to no piece.
    """
    if not words or len(pauses) < 2:
        return []
    between = _words_between(words, pauses)
    n = len(pauses)
    costs = [0.0] + [float("inf")] * (n - 1)
    origins = [0] * n
    for end in range(1, n):
        for start in range(end - 1, -1, -1):
            inside = [word for part in between[start:end] for word in part]
            seconds = pauses[end].start_s - pauses[start].end_s
            cost = costs[start] + _cost(inside, seconds, pauses[end], longest_s, shortest_s)
            if cost < costs[end]:
                costs[end], origins[end] = cost, start
            if seconds > 2 * longest_s and end - start > 1:
                break
    return _pieces(between, pauses, origins)


def _words_between(words: Sequence[TimedWord], pauses: Sequence[Pause]) -> list[list[TimedWord]]:
    """Words from each pause to the next: by their middle, since recognisers stretch words into pauses."""
    between: list[list[TimedWord]] = [[] for _ in range(len(pauses) - 1)]
    k = 0
    for word in words:
        while k + 1 < len(between) and word.middle_s > pauses[k + 1].middle_s:
            k += 1
        between[k].append(word)
    return between


def _cost(words: Sequence[TimedWord], seconds: float, pause: Pause, longest_s: float, shortest_s: float) -> float:
    if not words:
        return 0.5
    length = abs(seconds - GOOD_S) / GOOD_S + (20.0 + seconds if seconds > longest_s else 0.0)
    too_short = 3.0 if seconds < shortest_s else 0.0
    last = words[-1].text.strip().rstrip(CLOSING)
    ending = 0.0 if last.endswith(SENTENCE_END) else 2.0 if last.endswith(CLAUSE_END) else 4.0
    inner = 2.0 * sum(
        last.strip().rstrip(CLOSING).endswith(SENTENCE_END) for last in (word.text for word in words[:-1])
    )
    hurried = 1.0 if pause.length_s < 2 * MARGIN_S else 0.0
    return 0.5 + length + too_short + ending + hurried + inner


def _pieces(between: Sequence[Sequence[TimedWord]], pauses: Sequence[Pause], origins: Sequence[int]) -> list[Piece]:
    pieces = []
    end = len(pauses) - 1
    while end > 0:
        start = origins[end]
        words = tuple(word for part in between[start:end] for word in part)
        if words:
            before, after = pauses[start], pauses[end]
            pieces.append(
                Piece(
                    max(before.end_s - MARGIN_S, before.middle_s),
                    min(after.start_s + MARGIN_S, after.middle_s),
                    words,
                )
            )
        end = start
    return pieces[::-1]
