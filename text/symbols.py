"""The 148 input symbols of NVIDIA/tacotron2, in the order of its embedding rows.

The order is a file format: row i of a published checkpoint's `embedding.weight` is symbol i.
"""

import unicodedata

PAD = "_"
_SPECIAL = "-"
_PUNCTUATION = "!'(),.:;? "
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

# ARPAbet as the CMU Pronouncing Dictionary spells it: a vowel alone, then with stress 0 (none), 1 (primary) and
# 2 (secondary). Alphabetical order mixes vowels and consonants, hence the single list.
_VOWELS = ("AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW")
_CONSONANTS = (
    *("B", "CH", "D", "DH", "F", "G", "HH", "JH", "K", "L", "M", "N"),
    *("NG", "P", "R", "S", "SH", "T", "TH", "V", "W", "Y", "Z", "ZH"),
)
ARPABET: tuple[str, ...] = tuple(
    sorted([*_CONSONANTS, *_VOWELS, *(vowel + stress for vowel in _VOWELS for stress in "012")])
)

PHONEME_PREFIX = "@"  # keeps the phoneme B apart from the letter B
symbols: tuple[str, ...] = (
    PAD,
    *_SPECIAL,
    *_PUNCTUATION,
    *_LETTERS,
    *(PHONEME_PREFIX + phoneme for phoneme in ARPABET),
)


def needs_sound(symbol: str) -> bool:
    """Whether a symbol is spoken: a letter, digit or phoneme; not padding, punctuation, spaces or marks."""
    return any(unicodedata.category(char)[0] in "LN" and unicodedata.category(char) != "Lm" for char in symbol)
