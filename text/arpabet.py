"""ARPAbet and IPA: how one is written in the other.

IPA here is General American as espeak-ng and VITS write it: stress marks directly before the vowel. Correspondences:
the phone set of the CMU Pronouncing Dictionary and the IPA chart.
"""

import difflib
import re
from collections.abc import Sequence
from functools import cache

STRESSES = {"1": "\u02c8", "2": "\u02cc", "0": ""}
_MARKS = {mark: stress for stress, mark in STRESSES.items() if mark}

_VOWELS = {
    "AA": "\u0251\u02d0", "AE": "\u00e6", "AH": "\u028c", "AO": "\u0254\u02d0", "AW": "a\u028a", "AY": "a\u026a",
    "EH": "\u025b", "ER": "\u025c\u02d0\u0279", "EY": "e\u026a", "IH": "\u026a", "IY": "i\u02d0", "OW": "o\u028a",
    "OY": "\u0254\u026a", "UH": "\u028a", "UW": "u\u02d0",
}  # fmt: skip
_WEAK_VOWELS = {"AH": "\u0259", "ER": "\u0259\u0279", "IY": "i", "UW": "u\u02d0"}  # without stress
_CONSONANTS = {
    "B": "b", "CH": "t\u0283", "D": "d", "DH": "\u00f0", "F": "f", "G": "\u0261", "HH": "h", "JH": "d\u0292",
    "K": "k", "L": "l", "M": "m", "N": "n", "NG": "\u014b", "P": "p", "R": "\u0279", "S": "s", "SH": "\u0283",
    "T": "t", "TH": "\u03b8", "V": "v", "W": "w", "Y": "j", "Z": "z", "ZH": "\u0292",
}  # fmt: skip

# The one-letter alphabet of misaki, in which hibari reads English; longer units first.
_MISAKI = {
    "\u025c\u0279": "ER", "\u0259\u0279": "ER", "A": "EY", "I": "AY", "W": "AW", "Y": "OY", "O": "OW", "Q": "OW",
    "\u0251": "AA", "a": "AA", "\u00e6": "AE", "\u028c": "AH", "\u0259": "AH", "\u0250": "AH", "\u1d4a": "AH",
    "\u0254": "AO", "\u0252": "AA", "\u025b": "EH", "e": "EH", "\u025c": "ER", "\u025a": "ER", "\u026a": "IH",
    "\u1d7b": "IH", "i": "IY", "u": "UW", "\u028a": "UH", "o": "OW",
}  # fmt: skip
_MISAKI_CONSONANTS = {
    "\u02a7": "CH", "\u02a4": "JH", "T": "T", "\u027e": "T", "\u0294": "T", "x": "K", "r": "R", "g": "G",
    **{ipa: arpabet for arpabet, ipa in _CONSONANTS.items() if len(ipa) == 1},
}  # fmt: skip
_MISAKI_UNIT = re.compile("|".join(sorted((re.escape(unit) for unit in _MISAKI), key=len, reverse=True)))


def ipa_of(phonemes: Sequence[str]) -> str:
    """IPA of one word in ARPAbet.

    >>> ipa_of(["HH", "AH0", "L", "OW1"]) == "h\u0259l\u02c8o\u028a"
    True
    """
    return "".join(_ipa(phoneme) for phoneme in phonemes)


def _ipa(phoneme: str) -> str:
    if phoneme in _CONSONANTS:
        return _CONSONANTS[phoneme]
    vowel, stress = (phoneme[:2], phoneme[2:] or "0")
    weak = _WEAK_VOWELS.get(vowel) if stress == "0" else None
    return STRESSES[stress] + (weak or _VOWELS[vowel])


def arpabet_of_misaki(reading: str) -> list[str]:
    """ARPAbet of a reading in misaki's alphabet; what it has no letter for (length marks) is passed over."""
    phonemes, stress, place = [], "0", 0
    while place < len(reading):
        letter = reading[place]
        unit = _MISAKI_UNIT.match(reading, place)
        if letter in _MARKS:
            stress = _MARKS[letter]
        elif unit:
            phonemes.append(_MISAKI[unit[0]] + stress)
            stress, place = "0", place + len(unit[0]) - 1
        elif letter in _MISAKI_CONSONANTS:
            phonemes.append(_MISAKI_CONSONANTS[letter])
        place += 1
    return phonemes


def nearest_variant(variants: Sequence[Sequence[str]], reading: Sequence[str]) -> Sequence[str]:
    """The variant most like `reading`; the first of equals."""
    return max(variants, key=lambda variant: difflib.SequenceMatcher(None, variant, reading, autojunk=False).ratio())


@cache
def letter_names() -> dict[str, tuple[str, ...]]:
    """How single letters are called: for words that are spelled."""
    names = (
        "A EY1|B B IY1|C S IY1|D D IY1|E IY1|F EH1 F|G JH IY1|H EY1 CH|I AY1|J JH EY1|K K EY1|L EH1 L|M EH1 M|"
        "N EH1 N|O OW1|P P IY1|Q K Y UW1|R AA1 R|S EH1 S|T T IY1|U Y UW1|V V IY1|W D AH1 B AH0 L Y UW0|X EH1 K S|"
        "Y W AY1|Z Z IY1"
    )
    return {entry[0].lower(): tuple(entry[2:].split()) for entry in names.split("|")}
