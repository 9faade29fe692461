"""Russian: what people write, in letters with stress or in IPA."""

import re
from collections.abc import Sequence
from functools import cache, cached_property
from typing import Any

from text.changes import differences, single_spaced
from text.child import Children, check_installed, children_of
from text.cleaners import clean
from text.inspection import STRESS_ACCENTS
from text.notes import Note
from text.readers import Spelling
from text.russian_sounds import RUSSIAN_VOWELS, ipa_of_russian
from text.symbol_sets import DATA
from text.transliteration import transliterated

_ACCENTED = re.compile(rf"([{RUSSIAN_VOWELS}])[{STRESS_ACCENTS}]", re.IGNORECASE)
_STRAY_PLUS = re.compile(rf"\+(?![{RUSSIAN_VOWELS}])|\+(?=\+)")
_ACCENTED_LATIN = re.compile("[\u00c0-\u024f\u1e00-\u1eff]")
# What ru-normalizr leaves: "and" for an ampersand, nothing for accents that stand on no vowel.
_SIGNS = str.maketrans({"&": " \u0438 ", **dict.fromkeys(STRESS_ACCENTS, "")})


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


def _with_russian_words(text: str) -> str:
    """Names, signs and abbreviations that ru-normalizr would leave, in Russian letters; Latin letters plain."""
    text = _ACCENTED_LATIN.sub(lambda match: transliterated(match[0]), text).translate(_SIGNS)
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
