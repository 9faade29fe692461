"""What a cleaner or normaliser made of a text: notes on what was replaced, and signs made uniform."""

import difflib
from collections import Counter

from text.inspection import script_of
from text.notes import Note, NoteKind
from text.transliteration import transliterated

_QUOTES = str.maketrans(dict.fromkeys("\u00ab\u00bb\u2039\u203a\u201c\u201d\u201e\u201f", '"'))
_EDGES = "+.,:;!?()\"'\u00ab\u00bb\u201c\u201d\u201e\u2026\u2014\u2013-"


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
