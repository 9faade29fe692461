"""A text without what no reader sees or means: the corrections that need no ear."""

import html
import re
import unicodedata

from corpus.text_checks import check_text, look_alike_words, undone_mojibake

_TAG = re.compile(r"</?[a-zA-Z][^<>]{0,40}>")
_ESCAPE = re.compile(r"\\[nrt]")


def corrected_text(text: str) -> str:
    """The text with damage undone where that is certain; a good text comes back as it is.

    Undone: UTF-8 that was read as another encoding, letters in parts, ligatures and full-width letters, letters of a
    look-alike script, tags and entities, characters that nobody sees, runs of spaces.
    """
    if not check_text(text):
        return text
    fixed = undone_mojibake(text) or text
    fixed = _ESCAPE.sub(" ", html.unescape(_TAG.sub("", fixed)))
    fixed = "".join(_plain(char) for char in unicodedata.normalize("NFC", fixed))
    for word, foreign in look_alike_words(fixed).items():
        fixed = re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", foreign.corrected(word), fixed)
    return " ".join(fixed.split())


def _plain(char: str) -> str:
    category = unicodedata.category(char)
    if category in ("Cc", "Zl", "Zp", "Cs"):
        return " "
    if category in ("Cf", "Co", "Cn"):
        return ""
    compatible = unicodedata.normalize("NFKC", char)
    return compatible if compatible.isalpha() else char
