"""What is wrong with one text, whatever its language: characters nobody sees, look-alikes, damage, length.

Whether the symbols of a voice can spell a text is another question, which the text front end answers.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from corpus.findings import Finding, error, shown, warning
from corpus.unspoken_text import unspoken

LONG_TEXT = 500  # characters; half a minute of speech
IMPOSSIBLE_TEXT = 2000  # two minutes of speech
_WORD = re.compile(r"[^\W\d_]+(?:[\u0300-\u036f][^\W\d_]*)*")
_MARKUP = re.compile(r"</?[a-zA-Z][^<>]{0,40}>|&(?:[a-zA-Z]{2,8}|#\d{1,6});|\\[nrt\"]")
_LOST = re.compile(r"(?<=[A-Za-z])\?(?=[a-z])|(?:^|(?<=\s))\?{2,}(?=\s|$)")  # "Caf?s" and "???? ??", not "Why?No."
_KNOWN_INVISIBLE = {"\u00ad": "soft hyphen", "\u200b": "zero-width space", "\ufeff": "byte-order mark"}
SCRIPTS = ("LATIN", "CYRILLIC", "GREEK")
# Letters that look alike in print, in the same order: Latin and Cyrillic, Latin and Greek
_CYRILLIC = (
    "aceiojpxyskvhABCEHIKMOPTXYSJ",
    "\u0430\u0441\u0435\u0456\u043e\u0458\u0440\u0445\u0443\u0455\u043a\u0475\u04bb\u0410"
    "\u0412\u0421\u0415\u041d\u0406\u041a\u041c\u041e\u0420\u0422\u0425\u0423\u0405\u0408",
)
_GREEK = (
    "iojpxkuvABEHIKMOPTXYNZ",
    "\u03b9\u03bf\u03f3\u03c1\u03c7\u03ba\u03c5\u03bd\u0391\u0392\u0395\u0397\u0399\u039a"
    "\u039c\u039f\u03a1\u03a4\u03a7\u03a5\u039d\u0396",
)
_ITALICS = ("un", "\u0438\u043f")  # Latin letters that italic Cyrillic looks like
# (script of the word, foreign letter) -> the letter that is meant
MEANT = {
    (script, a): b
    for script, (own, others) in (
        ("CYRILLIC", _CYRILLIC),
        ("LATIN", _CYRILLIC[::-1]),
        ("GREEK", _GREEK),
        ("LATIN", _GREEK[::-1]),
        ("CYRILLIC", _ITALICS),
    )
    for a, b in zip(own, others, strict=True)
}
LOOK_ALIKES = frozenset(letter for _, letter in MEANT)


def check_text(text: str) -> list[Finding]:
    """Everything that is wrong with a text as it stands in a list; nothing for a good one in any language."""
    if len(text) > IMPOSSIBLE_TEXT:  # judged no further: the rest would only be slow
        return [error("long text", *_length(text), value=len(text), limit=IMPOSSIBLE_TEXT)]
    if not any(char.isalnum() for char in text):
        return [error("empty text", f'no letter to read in "{shown(text)}"', "write the text or drop the line")]
    damage = list(_damage(text))
    if damage:
        return damage
    found = [*unspoken(text), *_invisible(text), *_form(text), *_look_alike_words(text), *_markup(text)]
    if len(text) > LONG_TEXT:
        found.append(warning("long text", *_length(text), value=len(text), limit=LONG_TEXT))
    return found


def _length(text: str) -> tuple[str, str]:
    return f'{len(text)} characters: "{shown(text)}"', "cut it into sentences, with the recording"


# ---- damage


def _damage(text: str) -> Iterator[Finding]:
    if "\ufffd" in text:
        yield error(
            "damaged text",
            f'characters were lost when it was decoded ({text.count(chr(0xFFFD))} x U+FFFD): "{shown(text)}"',
            "restore it from the original in its true encoding",
        )
    elif (meant := undone_mojibake(text)) is not None:
        yield error(
            "damaged text",
            f'"{shown(text)}" is UTF-8 read as another encoding: "{shown(meant)}"',
            "decode the original as UTF-8",
        )
    elif _LOST.search(text):
        yield warning(
            "damaged text",
            f'question marks stand where letters were: "{shown(text)}"',
            "restore it from the original in its true encoding",
        )


def undone_mojibake(text: str) -> str | None:
    """What a text said before its UTF-8 bytes were taken for single characters; None for a sound text."""
    if text.isascii():
        return None
    for encoding in ("cp1252", "cp1251", "latin-1"):
        try:
            meant = text.encode(encoding).decode("utf-8")
        except UnicodeError:
            continue
        if len(text) - len(meant) >= 2:  # one odd pair may be meant
            return meant
    return None


# ---- characters nobody sees


def _invisible(text: str) -> Iterator[Finding]:
    controls = Counter(char for char in text if _is_control(char))
    if controls:
        yield error(
            "control character",
            f'{_named(controls)} in "{shown(text)}"',
            "delete it",
            value=sum(controls.values()),
            limit=0,
        )
    hidden = Counter(char for char in text if unicodedata.category(char) in ("Cf", "Co", "Cn"))
    if hidden:
        yield warning(
            "invisible character",
            f'{_named(hidden)} in "{shown(text)}"',
            "delete it",
            value=sum(hidden.values()),
            limit=0,
        )


def _is_control(char: str) -> bool:
    return char != "\t" and unicodedata.category(char) in ("Cc", "Zl", "Zp", "Cs")


def _named(counts: Counter[str]) -> str:
    return ", ".join(f"U+{ord(char):04X} {_name(char)} x{n}" for char, n in counts.most_common(3))


def _name(char: str) -> str:
    return _KNOWN_INVISIBLE.get(char) or unicodedata.name(char, "control character").lower()


def _form(text: str) -> Iterator[Finding]:
    composed = unicodedata.normalize("NFC", text)
    if composed != text:
        odd = next((a for a in re.findall(r"\w[\u0300-\u036f]+", text) if unicodedata.normalize("NFC", a) != a), None)
        what = f"letters are written in parts, such as {odd!r}" if odd else "characters have a common other form"
        yield warning("unicode form", f'{what}: "{shown(text)}"', "normalise it to NFC")
    wide = Counter(char for char in composed if char.isalnum() and _is_compatible(char))
    if wide:
        yield warning(
            "unicode form",
            f'{_named(wide)}, a special form of "{unicodedata.normalize("NFKC", next(iter(wide)))}": "{shown(text)}"',
            "write plain letters",
        )


@lru_cache(maxsize=4096)
def _is_compatible(char: str) -> bool:
    """Whether it is a ligature, a full-width or otherwise dressed-up letter."""
    plain = unicodedata.normalize("NFKC", char)
    return plain != char and plain.isalpha() and char.isalpha()


def _markup(text: str) -> Iterator[Finding]:
    marks = _MARKUP.findall(text)
    if marks:
        yield warning("markup", f'"{shown(marks[0])}" in "{shown(text)}"', "write what is said")


# ---- look-alikes


def _look_alike_words(text: str) -> Iterator[Finding]:
    words = look_alike_words(text)
    if words:
        word, foreign = next(iter(words.items()))
        named = ", ".join(f"U+{ord(char):04X} {unicodedata.name(char).lower()}" for char in foreign.letters)
        more = f" (and {len(words) - 1} more)" if len(words) > 1 else ""
        detail = f'"{shown(word)}"{more} holds {named}'
        yield warning("look-alike letters", detail, "type the word anew", value=len(words), limit=0)


@dataclass(frozen=True)
class Foreign:
    """Letters of a word that belong to another script than `script`, the word's own, and look like it."""

    letters: str
    script: str

    def corrected(self, word: str) -> str:
        """The word in its own script, as far as each letter has a counterpart."""
        return "".join(MEANT.get((self.script, char), char) if char in self.letters else char for char in word)


def look_alike_words(text: str) -> dict[str, Foreign]:
    """Words that hold letters of another script that look like their own."""
    if text.isascii():
        return {}
    words = _WORD.findall(text)
    main = Counter(script for word in words for script in _scripts(word)).most_common(1)
    script_of_text = main[0][0] if main and len(words) > 2 else ""
    return {word: foreign for word in words if (foreign := _foreign_letters(word, script_of_text)) is not None}


def _foreign_letters(word: str, script_of_text: str) -> Foreign | None:
    """None where all letters are of one script, or the mixture is meant."""
    by_script = _scripts(word)
    if len(by_script) > 1:
        if _is_inflected_abbreviation(word):
            return None
        for script, _ in reversed(by_script.most_common()):  # the rarer one is the intruder, if it can be mistaken
            letters = "".join(dict.fromkeys(char for char in word if _script(char) == script))
            if all(char in LOOK_ALIKES for char in letters):
                own = next(other for other, _ in by_script.most_common() if other != script)
                return Foreign(letters, own)
        return None
    script = next(iter(by_script), "")
    is_abbreviation = len(word) > 1 and word.isupper()  # "PC" in a Russian text is meant
    if not script_of_text or script in ("", script_of_text) or is_abbreviation:
        return None
    is_mistakable = all((script_of_text, char) in MEANT for char in word)
    return Foreign("".join(dict.fromkeys(word)), script_of_text) if is_mistakable else None


def _is_inflected_abbreviation(word: str) -> bool:
    """Whether capitals of one script are followed by small letters of another, as where a language borrows "SMS"."""
    capitals = len(word) - len(word.lstrip("".join(char for char in word if char.isupper())))
    head, tail = _scripts(word[:capitals]), _scripts(word[capitals:])
    return capitals > 1 and len(head) == len(tail) == 1 and head.keys() != tail.keys() and word[capitals:].islower()


def _scripts(word: str) -> Counter[str]:
    """How many letters of each script."""
    return Counter(script for char in word if (script := _script(char)))


@lru_cache(maxsize=4096)
def _script(char: str) -> str:
    """ "" for a letter of any other script."""
    first = unicodedata.name(char, "").partition(" ")[0]
    return first if first in SCRIPTS else ""
