"""A long text in parts that a voice can say in one go: sentences, and clauses of those that are too long for it.

    split_text("First one. Second one.\\n\\nNext paragraph.", language="en", longest=120)

Between parts there is silence: more after a paragraph than after a sentence, and as much as `[pause 0.5s]` asks for.
Pure text: no voice is needed to split one. Sentences are found by sentencex (MIT), which knows some 300 languages and
their abbreviations.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil

from common.errors import DataError, UserError, format_problems

Span = tuple[int, int]  # of a text: first character, and the one behind the last
Segmenter = Callable[[str, str], Sequence[str]]  # language, text -> its sentences, which make up the text again

LONGEST_PAUSE_S = 60.0
LONGEST_BRACES = 1000  # characters of phonemes that are kept together
_MARK = re.compile(r"\[pause\b([^\]\n]*)\]", re.IGNORECASE)
_DURATION = re.compile(r"\s+(\d+(?:[.,]\d+)?)\s*(ms|s)?\s*", re.IGNORECASE)
_PARAGRAPH = re.compile(r"\n[ \t]*\n\s*")
_BRACES = re.compile(r"\{[^{}]*\}")
# A sentence may end here although the dots do not say so: a capital letter follows.
_TRAILING_OFF = re.compile(r"(?:\u2026|\.{3})[\"'\u00bb\u201d\u2019)\]]*\s+")
_CONTINUED = frozenset("-\u2013\u2014,;:")  # what begins so goes on with the sentence before
# Where a sentence that is too long is cut: the earlier in this list, the less it is heard.
_CUTS = (
    re.compile(r"[;:]\s+|\s[\u2013\u2014-]\s+|[\uff1b\uff1a]"),
    re.compile(r",\s+|\)\s+|[\uff0c\u3001\u060c]\s*"),
)
_SPACE = re.compile(r"\s+")


@dataclass(frozen=True)
class Part:
    """Text to say in one go, "" where only silence is wanted; pause_s: silence after it; line: where it begins."""

    text: str
    pause_s: float
    line: int = 1


@dataclass(frozen=True)
class Pauses:
    """Silence between parts in seconds, beside the little that a voice leaves at their ends."""

    clause_s: float = 0.08
    sentence_s: float = 0.25
    paragraph_s: float = 0.6


def split_text(
    text: str,
    *,
    language: str,
    longest: int,
    pauses: Pauses | None = None,
    segmenter: Segmenter | None = None,
) -> list[Part]:
    """The parts of a text in order. longest: characters of a part at most; language: as in `python -m text languages`.

    Blank lines end paragraphs, other line breaks are spaces. What has neither letter nor digit joins its neighbour.
    DataError with all marks `[pause ...]` that cannot be understood.
    """
    assert longest > 0, longest
    text = text.replace("\r\n", "\n").replace("\r", "\n").rstrip()
    lines = _Lines(text)
    splitter = _Splitter(text, language, longest, pauses or Pauses(), segmenter or sentences_by_library)
    parts: list[Part] = []
    problems: list[str] = []
    spoken: list[Part] = []
    for span, mark in _stretches(text):
        spoken = [replace(part, line=lines.at(start)) for start, part in splitter.parts(span)]
        parts += spoken
        try:
            _end_stretch(parts, mark, has_words=bool(spoken), paragraph_s=splitter.pauses.paragraph_s)
        except ValueError as error:
            problems.append(f"line {lines.at(span[1])}: {error}")
    if problems:
        raise DataError(format_problems(problems, headline=f"{len(problems)} pauses cannot be understood:"))
    if spoken:
        parts[-1] = replace(parts[-1], pause_s=0.0)  # nothing follows
    return parts


def _end_stretch(parts: list[Part], mark: str | None, *, has_words: bool, paragraph_s: float) -> None:
    """Sets the silence after the last part. mark: what a pause's mark holds, None at the end of a paragraph."""
    if mark is None:
        if has_words:
            parts[-1] = replace(parts[-1], pause_s=paragraph_s)
        return
    pause_s = _pause_of(mark, default_s=paragraph_s)
    if has_words:
        parts[-1] = replace(parts[-1], pause_s=pause_s)
    elif parts:
        parts[-1] = replace(parts[-1], pause_s=parts[-1].pause_s + pause_s)
    else:
        parts.append(Part("", pause_s))


def sentences_by_library(language: str, text: str) -> Sequence[str]:
    """By sentencex. UserError if it is missing."""
    try:
        import sentencex
    except ImportError:
        raise UserError("splitting a text into sentences needs sentencex: pip install sentencex") from None
    return sentencex.segment(language, text)


def sentences_by_punctuation(language: str, text: str) -> Sequence[str]:
    """Without any package: wherever a space follows . ! ? or its like. It takes "Dr. No" for two sentences."""
    return [piece for piece in re.split(r"(?<=[.!?\u2026\u3002\uff01\uff1f]\s)", text) if piece]


def _pause_of(duration: str, *, default_s: float) -> float:
    """Seconds that ` 0.5s` means, or ` 500 ms`; ValueError says what is allowed."""
    if not duration.strip():
        return default_s
    found = _DURATION.fullmatch(duration)
    if not found:
        raise ValueError(f"[pause{duration}]; write [pause 0.5s] or [pause 500ms]")
    pause_s = float(found[1].replace(",", ".")) * (0.001 if (found[2] or "s").lower() == "ms" else 1.0)
    if pause_s > LONGEST_PAUSE_S:
        raise ValueError(f"[pause{duration}] is longer than {LONGEST_PAUSE_S:g} s; write several")
    return pause_s


def _stretches(text: str) -> Iterator[tuple[Span, str | None]]:
    """Stretches of text, each with the mark of a pause that ends it; None where its paragraph ends."""
    found = [(match.span(), match[1]) for match in _MARK.finditer(text)]
    found += [(match.span(), None) for match in _PARAGRAPH.finditer(text)]
    start = 0
    for (end, beyond), mark in sorted(found, key=lambda each: each[0]):
        yield (start, end), mark
        start = beyond
    yield (start, len(text)), None


class _Lines:
    """Line numbers of places in a text."""

    def __init__(self, text: str) -> None:
        self._breaks = [i for i, character in enumerate(text) if character == "\n"]

    def at(self, place: int) -> int:
        return bisect_right(self._breaks, place - 1) + 1


@dataclass(frozen=True)
class _Splitter:
    text: str
    language: str
    longest: int
    pauses: Pauses
    segmenter: Segmenter

    def parts(self, stretch: Span) -> Iterator[tuple[int, Part]]:
        """Each with the place where it begins."""
        for sentence in self._sentences(stretch):
            for (start, end), pause_s in self._clauses(*sentence):
                yield start, Part(" ".join(self.text[start:end].split()), pause_s)

    def _sentences(self, stretch: Span) -> list[Span]:
        start, end = stretch
        found: list[Span] = []
        for piece in self.segmenter(self.language, self.text[start:end].replace("\n", " ")):
            found += self._where_it_trails_off((start, start + len(piece)))
            start += len(piece)
        assert start == end, "a segmenter must lose nothing"
        return self._joined(found)

    def _where_it_trails_off(self, span: Span) -> Iterator[Span]:
        start, end = span
        for match in _TRAILING_OFF.finditer(self.text, start, end):
            if match.end() < end and self.text[match.end()].isupper():
                yield start, match.end()
                start = match.end()
        yield start, end

    def _joined(self, spans: Sequence[Span]) -> list[Span]:
        """What cannot be said alone, or goes on with the sentence before, joins it; at the beginning, the next."""
        joined: list[Span] = []
        for start, end in spans:
            alone = is_spoken(self.text[start:end])
            if joined and not (alone and is_spoken(self.text[slice(*joined[-1])]) and self._begins_anew(start, end)):
                joined[-1] = (joined[-1][0], end)
            else:
                joined.append((start, end))
        return [span for span in joined if is_spoken(self.text[slice(*span)])]

    def _begins_anew(self, start: int, end: int) -> bool:
        first = self.text[start:end].lstrip()[:1]
        return not (first.islower() or first in _CONTINUED)

    def _clauses(self, start: int, end: int) -> Iterator[tuple[Span, float]]:
        """The sentence as a whole, or cut where it is heard least; each with the silence after it."""
        while end - start > self.longest:
            cut, pause_s = self._cut(start, end)
            yield (start, cut), pause_s
            start = cut
        yield (start, end), self.pauses.sentence_s

    def _cut(self, start: int, end: int) -> tuple[int, float]:
        """The place nearest to an even division among those of the best kind, and the silence there."""
        wanted = start + ceil((end - start) / ceil((end - start) / self.longest))
        window = (start + self.longest // 3, start + self.longest)
        seen = min(end, start + 2 * self.longest)  # looking further would take time that grows with its square
        braces = [match.span() for match in _BRACES.finditer(self.text, start, min(end, seen + LONGEST_BRACES))]
        for pattern, pause_s in [*((cut, self.pauses.clause_s) for cut in _CUTS), (_SPACE, 0.0)]:
            places = [match.end() for match in pattern.finditer(self.text, start, seen)]
            fitting = [p for p in places if window[0] <= p <= window[1] and not any(a < p < b for a, b in braces)]
            if fitting:
                return min(fitting, key=lambda place: abs(place - wanted)), pause_s
        whole = [b for a, b in braces if a < wanted < b]  # phonemes stay together, whatever their number
        return (whole or [wanted])[0], 0.0


def is_spoken(text: str) -> bool:
    """Whether there is a letter or a digit in it."""
    return any(character.isalnum() for character in text)
