"""What only many texts together show: a list in capitals, lines that name their speaker, one text for all recordings.

One shouted line is meant, and one sentence read twice, too; a share of the list is a habit of whoever wrote it.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from corpus.findings import Finding, shown, warning
from corpus.unspoken_text import named_speaker, speaker_prefix

LEAST_LINES = 3
LEAST_SHARE = 0.02  # of the list
LEAST_REPEATED = 5  # lines with one text,
REPEATED_SHARE = 0.2  # of their speaker's: an emotional corpus says a sentence in up to ten manners
_BRACED = re.compile(r"\{[^{}]*\}")  # phonemes have no small letters
CAPITAL_LETTERS = 8  # in at least two words: "OK, NASA." is no habit


class Line(Protocol):
    """What a list says of a recording."""

    @property
    def number(self) -> int: ...
    @property
    def text(self) -> str: ...
    @property
    def speaker(self) -> str | None: ...


def check_shares(lines: Sequence[Line], *, key: Callable[[str], str]) -> Iterator[tuple[int, Finding]]:
    """Findings with their lines. key: what makes two texts the same to a listener."""
    yield from _capitals(lines)
    yield from _speaker_prefixes(lines)
    yield from _one_text(lines, key)


def _is_habit(n: int, lines: Sequence[Line]) -> bool:
    return n >= max(LEAST_LINES, LEAST_SHARE * len(lines))


def is_in_capitals(text: str) -> bool:
    """Whether all its letters are capitals, and there are more than an abbreviation has."""
    plain = _BRACED.sub(" ", text)
    return plain.isupper() and len(plain.split()) > 1 and sum(char.isupper() for char in plain) >= CAPITAL_LETTERS


def _capitals(lines: Sequence[Line]) -> Iterator[tuple[int, Finding]]:
    found = [line for line in lines if is_in_capitals(line.text)]
    if _is_habit(len(found), lines):
        for line in found:
            detail = f'all in capitals, as {len(found)} of {len(lines)} lines: "{shown(line.text)}"'
            yield line.number, warning("capitals", detail, "write sentences: readers take capitals for abbreviations")


def _speaker_prefixes(lines: Sequence[Line]) -> Iterator[tuple[int, Finding]]:
    """Names that are written as names are; those in capitals are told by themselves."""
    prefixes = [(line, name) for line in lines if (name := speaker_prefix(line.text)) and not name.isupper()]
    for name, n in Counter(name for _, name in prefixes).items():
        if _is_habit(n, lines):
            yield from ((line.number, named_speaker(name, line.text)) for line, own in prefixes if own == name)


def _one_text(lines: Sequence[Line], key: Callable[[str], str]) -> Iterator[tuple[int, Finding]]:
    """A list that was filled down, or joined wrongly, has one text for many recordings."""
    n_of = Counter(line.speaker for line in lines)
    same = Counter((key(line.text), line.speaker) for line in lines)
    for (text, speaker), n in same.items():
        if n >= max(LEAST_REPEATED, REPEATED_SHARE * n_of[speaker]):
            first = next(line for line in lines if line.speaker == speaker and key(line.text) == text)
            detail = f'{n} of {n_of[speaker]} lines have one text, from line {first.number} on: "{shown(first.text)}"'
            yield first.number, warning("one text", detail, "is it what each of these recordings says?")
