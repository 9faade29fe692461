"""Letters and signs outside ASCII in ASCII, by text-unidecode (Artistic licence).

Always by that package, never by Unidecode (GPL-2), even where both are installed: the ids of a text must not depend on
what else a machine has. Where the two differ on what people trained voices with, the older reading is pinned below, so
that those voices hear what they learnt; LJSpeech's own characters are pinned too, whatever a later version may say.
"""

import unicodedata
from functools import cache

_PINNED = {
    # all that LJSpeech's transcripts have, so that NVIDIA's ids stay
    "\u00fc": "u", "\u00e9": "e", "\u00ea": "e", "\u00e8": "e", "\u00e2": "a", "\u00e0": "a",
    "\u201c": '"', "\u201d": '"', "\u2019": "'",
    # where text-unidecode 1.3 says something else than Unidecode 1.4, or nothing
    "\u00bc": " 1/4", "\u00bd": " 1/2", "\u00be": " 3/4",
    "\u042a": "'", "\u044a": "'", "\u0404": "Ie",
    "\u2116": "No. ", "\u2122": "(tm)", "\u2103": "degC", "\u2109": "degF", "\u2212": "-",
    "\u20bd": "R", "\u20b4": "UAH", "\u20b9": "Rs", "\u1e9e": "SS",
}  # fmt: skip
_UNKNOWN_MARK = "[?]"  # what text-unidecode writes for some of those that it lacks


@cache
def transliterated(character: str) -> str:
    """The reading of one character; the character itself where it has none, so that it can be reported.

    Combining marks and invisible format characters have an empty reading.
    """
    if character.isascii():
        return character
    if character in _PINNED:
        return _PINNED[character]
    from text_unidecode import unidecode  # here, because most texts are ASCII already

    reading = unidecode(character)
    if reading.strip() and _UNKNOWN_MARK not in reading:
        return reading
    if reading.isspace() and character.isspace():
        return reading
    return "" if unicodedata.category(character) in ("Mn", "Cf") else character
