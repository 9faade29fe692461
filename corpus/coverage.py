"""Which symbols and pairs of symbols the texts of a corpus hold, and which sentences would add most. Pure.

Symbols are letters as written (without case) unless a front end spells the text otherwise. A pair is two neighbours
in a word; "#" stands for the edge of a word. What a voice has never heard it cannot say, and what it heard three times
it says badly.
"""

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

EDGE = "#"
STRESS = "\u0301"
SYMBOL_TARGET = 50  # occurrences after which another adds nothing
PAIR_TARGET = 8
QUESTION_TARGET = 30  # sentences
LEAST_IN_POOL = 2  # what occurs once in a pool is often a slip
SHORTEST, LONGEST = 3, 20  # words of a sentence that is pleasant to read aloud
_KIND_TARGETS = {"symbol": SYMBOL_TARGET, "pair": PAIR_TARGET, "ending": QUESTION_TARGET}
ENDINGS = {"?": "question", "!": "exclamation", "\u2026": "trailing off", ".": "statement", "\u061f": "question"}

Unit = tuple[str, str]  # kind and name, such as ("pair", "th")
Spelling = Callable[[str], Sequence[str]]


@dataclass(frozen=True)
class Coverage:
    """How often each unit occurs: ("symbol", "e"), ("pair", "th"), ("ending", "question")."""

    counts: Counter[Unit]

    def of(self, kind: str) -> Counter[str]:
        """Counts of one kind by name."""
        return Counter({name: n for (its, name), n in self.counts.items() if its == kind})

    def rare(self, kind: str, *, below: int) -> list[tuple[str, int]]:
        """Names that occur less often, the rarest first."""
        found = [(name, n) for name, n in self.of(kind).items() if n < below]
        return sorted(found, key=lambda item: (item[1], item[0]))


@dataclass(frozen=True)
class Suggestion:
    """A sentence to record, and the units it adds that were rare."""

    text: str
    adds: tuple[str, ...]


def coverage_of(texts: Iterable[str], *, spell: Spelling | None = None) -> Coverage:
    """Counts over all texts."""
    counts: Counter[Unit] = Counter()
    for text in texts:
        counts.update(units_of(text, spell=spell))
    return Coverage(counts)


def units_of(text: str, *, spell: Spelling | None = None) -> Counter[Unit]:
    """Symbols, pairs and the ending of one text."""
    units: Counter[Unit] = Counter()
    for word in _words(text, spell):
        units.update(("symbol", symbol) for symbol in word)
        units.update(("pair", a + b) for a, b in zip((EDGE, *word), (*word, EDGE), strict=True))
    last = text.rstrip(" \"')\u00bb\u201d\u2019")[-1:]
    if last in ENDINGS:
        units["ending", ENDINGS[last]] += 1
    return units


def _words(text: str, spell: Spelling | None) -> Iterable[Sequence[str]]:
    return [list(spell(word)) for word in text.split()] if spell is not None else _letters(text.casefold())


def _letters(text: str) -> list[list[str]]:
    """Letters by word; a stress mark belongs to its vowel, and an apostrophe to its word."""
    words: list[list[str]] = [[]]
    for char in text:
        if char == STRESS and words[-1]:
            words[-1][-1] += STRESS
        elif char.isalnum() or (char == "'" and words[-1]):
            words[-1].append(char)
        elif words[-1]:
            words.append([])
    return [word for word in words if word]


def suggest(
    have: Coverage, pool: Sequence[str], n: int, *, spell: Spelling | None = None, known: Iterable[str] = ()
) -> list[Suggestion]:
    """Up to n sentences of the pool that add most a word, the best first; those already recorded (`known`) left out.

    Each occurrence of a unit adds less than the one before, until its target, and then nothing.
    """
    known_texts = set(known)
    candidates = [t for t in dict.fromkeys(pool) if t not in known_texts and SHORTEST <= len(t.split()) <= LONGEST]
    units = {text: units_of(text, spell=spell) for text in candidates}
    in_pool: Counter[Unit] = Counter()
    for counted in units.values():
        in_pool.update(counted.keys())
    counts = have.counts.copy()
    heap = [(-_gain(units[text], counts, in_pool), i, text) for i, text in enumerate(candidates)]
    heapq.heapify(heap)
    chosen: list[Suggestion] = []
    while heap and len(chosen) < n:
        _, i, text = heapq.heappop(heap)
        gain = _gain(units[text], counts, in_pool)
        if gain <= 0:
            continue
        if heap and gain < -heap[0][0]:  # gains only shrink: what still leads after a fresh look is best
            heapq.heappush(heap, (-gain, i, text))
            continue
        chosen.append(Suggestion(text, _novelties(units[text], counts, in_pool)))
        counts.update(units[text])
    return chosen


def _gain(units: Counter[Unit], counts: Counter[Unit], in_pool: Counter[Unit]) -> float:
    """What a sentence adds a word: the share of each unit's target, more for what was never heard."""
    total = sum(
        _worth(counts[unit] + k, _KIND_TARGETS[unit[0]])
        for unit, n in units.items()
        if in_pool[unit] >= LEAST_IN_POOL
        for k in range(n)
    )
    n_words = max(1, sum(n for (kind, name), n in units.items() if kind == "pair" and name.startswith(EDGE)))
    return total / n_words


def _worth(count: int, target: int) -> float:
    return 1 / (1 + count) if count < target else 0.0


def _novelties(units: Counter[Unit], counts: Counter[Unit], in_pool: Counter[Unit]) -> tuple[str, ...]:
    """Units far from their target, the rarest first."""
    rare = [u for u in units if in_pool[u] >= LEAST_IN_POOL and counts[u] < _KIND_TARGETS[u[0]] / 2]
    return tuple(name for _, name in sorted(rare, key=lambda unit: (counts[unit], unit)))
