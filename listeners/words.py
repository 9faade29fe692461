"""Words of a text and words that were heard, made comparable, aligned and counted."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from common.errors import DataError
from listeners.packages import require

if TYPE_CHECKING:
    from jiwer import CharacterOutput

PACKAGES = {"jiwer": "jiwer", "whisper-normalizer": "whisper_normalizer"}
WITHOUT_SPACES = frozenset(("cmn", "zh", "yue", "ja", "th", "lo", "my"))  # each character counts as a word there
ACUTE = "\u0301"  # marks the stress in Russian texts; a letter that has an accent of its own is one character after NFC
LONGEST_REPETITION = 5  # words
SAME_SOUND = {"ru": str.maketrans("\u0451", "\u0435")}  # yo, which most people write as ye


@dataclass(frozen=True)
class WordErrors:
    """How one text was misheard. Each count is of words after normalisation."""

    substituted: int
    deleted: int  # of the text's words, not heard at all
    inserted: int
    repeated: int  # heard twice in a row, alone or in a phrase, where the text has them once
    n_words: int

    @property
    def total(self) -> int:
        return self.substituted + self.deleted + self.inserted


def normalise(text: str, *, language: str = "en") -> str:
    """Text as it is compared: lower case, no punctuation; in English numbers in digits, contractions written out.

    "It's ten past two." and "it is 10 past 2" become the same; a clock time such as 2:10 becomes "2 10".
    """
    base = language.partition("-")[0]
    # The library keeps the last point of an ellipsis as a word; Whisper writes one wherever speech trails off.
    without_dots = re.sub(r"\.{2,}|\u2026", " ", text)
    if base == "en":
        return str(_normaliser("en")(without_dots))
    kind = "characters" if base in WITHOUT_SPACES else "words"
    without_stress = unicodedata.normalize("NFC", without_dots).replace(ACUTE, "")
    plain = str(_normaliser(kind)(without_stress)).translate(SAME_SOUND.get(base, {}))
    return " ".join(plain.split())


@cache
def _normaliser(kind: str) -> Any:
    require(PACKAGES, purpose="counting word errors")
    if kind == "en":
        from whisper_normalizer.english import EnglishTextNormalizer

        return EnglishTextNormalizer()
    from whisper_normalizer.basic import BasicTextNormalizer

    return BasicTextNormalizer(split_letters=kind == "characters", preserve_marks=True)


def word_errors(reference: str, heard: str, *, language: str = "en") -> WordErrors:
    """Both texts are normalised, then aligned with the fewest errors."""
    require(PACKAGES, purpose="counting word errors")
    import jiwer

    meant, said = normalise(reference, language=language), normalise(heard, language=language)
    found = jiwer.process_words(meant, said)
    return WordErrors(
        substituted=found.substitutions,
        deleted=found.deletions,
        inserted=found.insertions,
        repeated=repeated_words(meant.split(), said.split()),
        n_words=found.hits + found.substitutions + found.deletions,
    )


def repeated_words(reference: Sequence[str], heard: Sequence[str]) -> int:
    """Words of `heard` that say again the one to five words right before them, where the reference does not."""
    meant = set(_doubled(reference))
    return sum(len(phrase) for phrase in _doubled(heard) if phrase not in meant)


def _doubled(words: Sequence[str]) -> list[tuple[str, ...]]:
    """Phrases that are said twice in a row, the longest first at each place."""
    found, i = [], 0
    while i < len(words):
        lengths = range(min(LONGEST_REPETITION, (len(words) - i) // 2), 0, -1)
        n = next((n for n in lengths if words[i : i + n] == words[i + n : i + 2 * n]), 0)
        if n:
            found.append(tuple(words[i : i + n]))
        i += max(n, 1)
    return found


def character_errors(reference: str, heard: str, *, language: str = "en") -> tuple[int, int]:
    """(errors, characters of the reference), spaces included, both texts normalised."""
    require(PACKAGES, purpose="counting character errors")
    import jiwer

    found: CharacterOutput = jiwer.process_characters(
        normalise(reference, language=language), normalise(heard, language=language)
    )
    errors = found.substitutions + found.deletions + found.insertions
    return errors, found.hits + found.substitutions + found.deletions


def wer(references: Sequence[str], heard: Sequence[str], *, language: str = "en") -> float:
    """Word error rate over all pairs, as a share (0.05 is 5 %); over 1 where much is inserted.

    Raises DataError if the references hold no word.
    """
    errors = [word_errors(r, h, language=language) for r, h in zip(references, heard, strict=True)]
    return rate([(each.total, each.n_words) for each in errors])


def cer(references: Sequence[str], heard: Sequence[str], *, language: str = "en") -> float:
    """Character error rate over all pairs, as a share. Raises DataError if the references hold no character."""
    return rate([character_errors(r, h, language=language) for r, h in zip(references, heard, strict=True)])


def rate(counts: Sequence[tuple[int, int]]) -> float:
    """All errors over all words."""
    total = sum(length for _, length in counts)
    if total == 0:
        raise DataError("the reference texts hold no words, so there is no error rate; give texts to compare with")
    return sum(errors for errors, _ in counts) / total
