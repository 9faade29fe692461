"""Readers: from plain text to symbols, one class for each way of reading. Here what they share, and letters.

A reader gets stretches of text that `inspection` has looked at and returns, for each, every stage on the way, the
symbols, and notes on what it guessed. Which symbols a voice has is not its business.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from text.changes import differences, single_spaced, transliterations, with_plain_quotes
from text.cleaners import clean, named_cleaners, transliteration_cleaners
from text.language_settings import TRANSLITERATING
from text.languages import Language
from text.notes import Note
from text.numbers_in_words import numbers_of

_DOTLESS = str.maketrans({"I": "\u0131", "\u0130": "i"})  # Turkish has two letters i
_DIGIT, _DIGITS = re.compile(r"\d"), re.compile(r"\d+")


@dataclass(frozen=True)
class Spelling:
    """stages: name and text of each step; symbols: characters, and ARPAbet with its prefix.

    unread: characters that nothing here reads, though a set may have the same sign for a sound, as 5 for a tone.
    """

    stages: tuple[tuple[str, str], ...]
    symbols: tuple[str, ...]
    notes: tuple[Note, ...] = ()
    unread: tuple[str, ...] = ()


class Reader(Protocol):
    """`packages`: those whose version matters for the result. `strict`: see `symbol_sets.is_silent`."""

    packages: tuple[str, ...]
    strict: bool

    def read(self, texts: Sequence[str]) -> list[Spelling]: ...

    def close(self) -> None: ...


class LettersByCleaners:
    """Letters as the cleaners leave them; no process of its own, nothing heavy to import.

    named: the user chose them, and they get the text as it is; else guillemets count as quotes first.
    """

    strict = True

    def __init__(self, cleaners: Sequence[str], *, named: bool) -> None:
        named_cleaners(cleaners)
        self._cleaners = tuple(cleaners)
        self._named = named
        self._transliterates = not TRANSLITERATING.isdisjoint(cleaners)
        self.packages: tuple[str, ...] = ("text-unidecode", "inflect") if self._transliterates else ()

    def read(self, texts: Sequence[str]) -> list[Spelling]:
        return [self._read(text) for text in texts]

    def _read(self, text: str) -> Spelling:
        cleaned = clean(text if self._named else with_plain_quotes(text), self._cleaners)
        notes = transliterations(text) if self._transliterates and not text.isascii() else []
        if _DIGIT.search(text) and not _DIGIT.search(cleaned):
            notes += differences(transliteration_cleaners(text), cleaned)
        return Spelling((("cleaned", cleaned),), tuple(cleaned), tuple(notes))

    def close(self) -> None:
        pass


class Letters:
    """The letters of any language, small and composed; numbers in words where a normaliser knows how, else noted."""

    strict = False

    def __init__(self, language: Language) -> None:
        self._numbers = numbers_of(language)
        self._has_dotless_i = language.base in ("tr", "az")
        self.packages: tuple[str, ...] = self._numbers.packages if self._numbers else ()

    def read(self, texts: Sequence[str]) -> list[Spelling]:
        written = self._numbers.read(texts) if self._numbers else list(texts)
        return [self._read(text, words) for text, words in zip(texts, written, strict=True)]

    def _read(self, text: str, words: str) -> Spelling:
        small = words.translate(_DOTLESS).lower() if self._has_dotless_i else words.lower()
        letters = single_spaced(unicodedata.normalize("NFC", small))
        notes = differences(text, words)
        notes += [Note("unknown word", digits, digits) for digits in _DIGITS.findall(letters)]
        return Spelling((("written out", words), ("letters", letters)), tuple(letters), tuple(notes))

    def close(self) -> None:
        if self._numbers:
            self._numbers.close()
