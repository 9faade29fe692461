"""Text to symbol ids and back, with inline ARPAbet: "Turn left on {HH AW1 S S T AH0 N} Street."

Text in braces is phonemes and goes past the cleaners. Nothing is dropped silently: a character that the symbols lack
is counted by `unknown_characters`, and `text_to_sequence` refuses it unless told to skip.
"""

import difflib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Literal

from common.errors import DataError, format_problems
from text.cleaners import clean
from text.symbols import ARPABET, PAD, PHONEME_PREFIX, symbols

_ID_OF = {symbol: i for i, symbol in enumerate(symbols)}
_SPOKEN = frozenset(symbols) - {PAD}  # an underscore in a text would be read as padding
_PHONEMES = frozenset(ARPABET)
EXCERPT_LENGTH = 60  # enough of a text to find it by
_BRACES = re.compile(r"\{([^{}]*[^{}\s][^{}]*)\}")  # braces around nothing, or unbalanced, are plain characters


def text_to_sequence(
    text: str, cleaner_names: Sequence[str], *, on_unknown: Literal["raise", "skip"] = "raise"
) -> list[int]:
    """Symbol ids [T_text] of `text`, cleaned outside braces and read as ARPAbet inside them.

    Raises DataError on characters that the symbols lack after cleaning, with count and code point;
    `on_unknown="skip"` leaves those out, as NVIDIA/tacotron2 does. A phoneme that ARPAbet lacks is refused either
    way. Raises UserError on an unknown cleaner.
    """
    spelled = list(_spell(text, cleaner_names))
    problems = [_phoneme_problem(phoneme) for phoneme in unknown_phonemes(text)]
    if on_unknown == "raise":
        problems += describe_characters(Counter(symbol for symbol in spelled if _is_unknown_character(symbol)))
    if problems:
        excerpt = text if len(text) <= EXCERPT_LENGTH else text[:EXCERPT_LENGTH] + "..."
        raise DataError(
            format_problems(problems, headline=f"{excerpt!r} cannot be spelled with the {len(symbols)} symbols:")
        )
    return [_ID_OF[symbol] for symbol in spelled if symbol in _SPOKEN]


def sequence_to_text(ids: Iterable[int]) -> str:
    """The text that these ids spell, phonemes in braces. Padding shows as `_`."""
    spelled = []
    for i in ids:
        assert 0 <= i < len(symbols), f"symbol id {i} is not in 0..{len(symbols) - 1}"
        spelled.append(symbols[i])
    runs = [(is_phoneme, list(run)) for is_phoneme, run in groupby(spelled, key=_is_phoneme)]
    return "".join(_in_braces(run) if is_phoneme else "".join(run) for is_phoneme, run in runs)


def unknown_characters(text: str, cleaner_names: Sequence[str]) -> Counter[str]:
    """How often each character occurs, after cleaning, that the symbols lack; empty when the text is fine.

    The padding symbol `_` counts as unknown. Phonemes in braces are not characters: see `unknown_phonemes`.
    """
    return Counter(symbol for symbol in _spell(text, cleaner_names) if _is_unknown_character(symbol))


def unknown_phonemes(text: str) -> Counter[str]:
    """How often each word occurs inside braces that is no ARPAbet phoneme."""
    phonemes = (phoneme for braces in _BRACES.finditer(text) for phoneme in braces[1].split())
    return Counter(phoneme for phoneme in phonemes if phoneme not in _PHONEMES)


def describe_characters(counts: Mapping[str, int]) -> list[str]:
    """One phrase per character, the commonest first: what it is, its code point, how often, what to do."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [f"{_character_name(char)} occurs {count} x: spell it out or remove it" for char, count in ordered]


def _spell(text: str, cleaner_names: Sequence[str]) -> Iterator[str]:
    """Cleaned characters and prefixed phonemes in order, known or not."""
    end = 0
    for braces in _BRACES.finditer(text):
        yield from clean(text[end : braces.start()], cleaner_names)
        yield from (PHONEME_PREFIX + phoneme for phoneme in braces[1].split())
        end = braces.end()
    yield from clean(text[end:], cleaner_names)


def _is_phoneme(symbol: str) -> bool:
    return len(symbol) > 1


def _in_braces(phonemes: Sequence[str]) -> str:
    return "{" + " ".join(phoneme.removeprefix(PHONEME_PREFIX) for phoneme in phonemes) + "}"


def _is_unknown_character(symbol: str) -> bool:
    return symbol not in _SPOKEN and not _is_phoneme(symbol)


def _character_name(char: str) -> str:
    name = unicodedata.name(char, "unnamed")
    return f"{char!r} (U+{ord(char):04X} {name})"


def _phoneme_problem(phoneme: str) -> str:
    nearest = difflib.get_close_matches(phoneme.upper(), ARPABET, n=3, cutoff=0.5)
    hint = f"; nearest: {', '.join(nearest)}" if nearest else ""
    return f"{{{phoneme}}} is not an ARPAbet phoneme{hint}"
