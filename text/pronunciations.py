"""Pronunciations of one's own: a file of words that beats every dictionary, model and rule.

    word<TAB>spelling to read instead         Nguyen<TAB>Win
    word<TAB>stressed spelling (Russian)      zamok<TAB>z+amok, in Russian letters; U+0301 after the vowel does as well
    word<TAB>{phonemes of the voice}          Nguyen<TAB>{W IH1 N}, or {w\u026an} for a voice on IPA

ARPAbet may go without braces. Capital letters do not matter in the word; lines that begin with `#` are comments. The
voice keeps the content, so the file is needed only once.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from common.encodings import NotText
from common.errors import UserError, format_problems
from common.files import read_given_text
from text.inspection import STRESS_ACCENTS
from text.symbols import ARPABET

_ARPABET = frozenset(ARPABET)
WORD = re.compile(r"[+]?[^\W\d_](?:[^\W_]|[+\u0300-\u036f]|['\u2019-](?=[^\W\d_]))*")
_STRESS = str.maketrans("", "", "+" + STRESS_ACCENTS)


@dataclass(frozen=True)
class Pronunciation:
    """What to read for `word`: `reading` is a spelling, or phonemes as they stand in braces."""

    word: str
    reading: str
    is_phonemes: bool
    where: str = ""

    def to_list(self) -> list[str]:
        return [self.word, f"{{{self.reading}}}" if self.is_phonemes else self.reading]


@dataclass(frozen=True)
class Pronunciations:
    """All entries, by word."""

    entries: tuple[Pronunciation, ...] = ()

    @cached_property
    def by_word(self) -> dict[str, Pronunciation]:
        return {entry.word: entry for entry in self.entries}

    def __bool__(self) -> bool:
        return bool(self.entries)

    def as_lists(self) -> list[list[str]]:
        """Plain data, as a voice keeps it."""
        return [entry.to_list() for entry in self.entries]

    def spellings(self) -> dict[str, str]:
        return {entry.word: entry.reading for entry in self.entries if not entry.is_phonemes}

    def applied(self, text: str) -> Iterator[str | Pronunciation]:
        """`text` in stretches: plain ones, with words replaced by their spellings, and entries with phonemes."""
        if not self.entries:
            yield text
            return
        plain, end = "", 0
        for match in WORD.finditer(text):
            for start, stop, entry in self._in_word(match):
                plain += text[end:start]
                end = stop
                if entry.is_phonemes:
                    yield plain
                    yield entry
                    plain = ""
                else:
                    plain += entry.reading
        yield plain + text[end:]

    def _in_word(self, match: re.Match[str]) -> Iterator[tuple[int, int, Pronunciation]]:
        """The entry of the whole word, or those of its parts between hyphens."""
        if marked(match[0]):
            return  # the author's own marks stand in the text itself, and win
        whole = self.by_word.get(key_of(match[0]))
        if whole:
            yield match.start(), match.end(), whole
            return
        for part in re.finditer(r"[^-]+", match[0]):
            entry = self.by_word.get(key_of(part[0]))
            if entry:
                yield match.start() + part.start(), match.start() + part.end(), entry


def key_of(word: str) -> str:
    """A word as the dictionary knows it: without stress marks, in small letters, composed."""
    return unicodedata.normalize("NFC", word.translate(_STRESS)).lower().replace("\u2019", "'")


def marked(word: str) -> bool:
    return any(mark in word for mark in "+" + STRESS_ACCENTS)


def parsed(word: str, reading: str, *, where: str = "") -> Pronunciation:
    """One entry of a file or a checkpoint; ValueError says what is wrong with it."""
    word, reading = word.strip(), reading.strip()
    if not WORD.fullmatch(word):
        raise ValueError(f"{word!r} is not one word; write a word of letters, hyphens and apostrophes")
    if not reading:
        raise ValueError(f"{word!r} has no reading; write one after the tab")
    braced = re.fullmatch(r"\{([^{}]*\S[^{}]*)\}", reading)
    if braced:
        return Pronunciation(key_of(word), braced[1].strip(), is_phonemes=True, where=where)
    if "{" in reading or "}" in reading:
        raise ValueError(f"{reading!r}: braces must hold the whole reading")
    bare_arpabet = all(part in _ARPABET for part in reading.split()) and reading.isupper()
    return Pronunciation(key_of(word), reading, is_phonemes=bare_arpabet, where=where)


def read_pronunciations(path: Path, check: Callable[[Pronunciation], str | None] = lambda _: None) -> Pronunciations:
    """The entries of a file. `check` says what is wrong with an entry, if anything. UserError with every bad line."""
    try:
        lines = read_given_text(path).split("\n")
    except NotText as error:
        raise UserError(f"{path} {error}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot read the pronunciations; {error.strerror}; correct the path") from error
    entries: dict[str, Pronunciation] = {}
    problems = []
    for number, line in enumerate(lines, start=1):
        if line.strip() and not line.startswith("#"):
            try:
                entry = _entry_of(line, where=f"{path}:{number}")
                problem = check(entry) or _repeated(entries.get(entry.word))
            except ValueError as error:
                problems.append(f"{path}:{number}: {error}")
                continue
            if problem:
                problems.append(f"{path}:{number}: {problem}")
            entries.setdefault(entry.word, entry)
    if problems:
        raise UserError(format_problems(problems, headline=f"{len(problems)} bad lines in the pronunciations:"))
    return Pronunciations(tuple(entries.values()))


def _entry_of(line: str, *, where: str) -> Pronunciation:
    columns = line.rstrip("\r").split("\t")
    if len(columns) != 2:
        raise ValueError(f"{len(columns)} columns; {line.strip()[:60]!r}; write WORD<TAB>READING")
    return parsed(*columns, where=where)


def _repeated(earlier: Pronunciation | None) -> str | None:
    return f"{earlier.word!r} stands in {earlier.where} already; delete one" if earlier else None
