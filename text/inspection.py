"""A look at a text as people type it: invisible characters, letters that only look right, letters of another script."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from text.languages import Language, languages_written_in
from text.notes import Note, TextProblem
from text.symbol_sets import DATA

STRESS_ACCENTS = "\u0301\u0341"  # combining acute, and its deprecated twin: stress after the vowel
_WORD = re.compile(r"[^\W\d_](?:[^\W_]|[\u0300-\u036f])*")
_SPACES = frozenset("\t\n\r\x0b\x0c")
PICTURES = re.compile("[\U0001f000-\U0001faff\u2600-\u27bf\u2b00-\u2bff\ufe0e\ufe0f\u20e3]")
# No language writes such a word; models take time that grows with its square, or cut it off.
LONGEST_WORD = 100
_LONG_WORD = re.compile(rf"[^\W_]{{{LONGEST_WORD + 1},}}")
_UNSPACED_SCRIPTS = frozenset(("cjk", "hiragana", "thai", "myanmar"))
# Here marks are parts of letters, and whatever is left when they are composed belongs to none.
_ALPHABETS = frozenset(("latin", "cyrillic", "greek"))
# Signs between letters that join them in writing: they are letters' parts, not signs to be left out.
_JOINERS = frozenset("\u200c\u200d")
_JOINING_SCRIPTS = frozenset(("arabic", "devanagari", "bengali", "malayalam", "kannada", "sinhala", "myanmar"))


@dataclass(frozen=True)
class Inspected:
    """The text in NFC without what is invisible and with its look-alikes mended; what was found."""

    text: str
    notes: tuple[Note, ...]
    problems: tuple[TextProblem, ...]


def inspect(text: str, language: Language) -> Inspected:
    """Mends what can be mended and says what cannot be read in this language."""
    if text.isascii() and text.isprintable() and "latin" in language.scripts:
        return Inspected(text, (), ())
    composed = unicodedata.normalize("NFC", text)
    visible, dropped = _without_invisible(composed, language)
    mended, look_alikes = _with_right_letters(visible, language)
    notes = [Note("dropped", _code_point(c), "", count) for c, count in dropped.items()] + look_alikes
    return Inspected(mended, tuple(notes), tuple(_problems(mended, language)))


@cache
def script_of(character: str) -> str:
    """`cyrillic`, `latin`, `cjk` ..., the first word of the letter's Unicode name; "" for what is no letter."""
    if not character.isalpha() or unicodedata.category(character) == "Lm":
        return ""
    name = unicodedata.name(character, "")
    return name.split(" ")[0].split("-")[0].lower()


def described(character: str) -> str:
    """Such as `'\u044f' (U+044F CYRILLIC SMALL LETTER YA)`."""
    return f"{character!r} ({_code_point(character)})"


def described_counts(counts: Counter[str]) -> str:
    """Characters with their counts, the commonest first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{described(character)} {count} x" for character, count in ordered)


def long_words(text: str, language: Language) -> list[TextProblem]:
    """For readers that look at whole words: those that are too long to be one."""
    if not _UNSPACED_SCRIPTS.isdisjoint(language.scripts):
        return []
    found = _LONG_WORD.findall(text)
    details = [f"{len(word)} letters or digits in a row, {word[:20]}...; put spaces between words" for word in found]
    return [TextProblem("cannot be read", detail) for detail in details]


def _without_invisible(text: str, language: Language) -> tuple[str, Counter[str]]:
    """Control, format and private characters and halves of pairs go; line breaks and tabs stay for the cleaners."""
    joins = not _JOINING_SCRIPTS.isdisjoint(language.scripts)
    stress = STRESS_ACCENTS if language.code == "ru" else ""
    kept_signs = {*_SPACES, *(_JOINERS if joins else ()), *stress}
    unwanted = ("Cc", "Cf", "Co", "Cs", *(("Mn",) if _ALPHABETS.issuperset(language.scripts) else ()))
    dropped = Counter(c for c in text if unicodedata.category(c) in unwanted and c not in kept_signs)
    return "".join(c for c in text if c not in dropped), dropped


def _code_point(character: str) -> str:
    return f"U+{ord(character):04X} {unicodedata.name(character, 'unnamed')}"


@cache
def _look_alikes() -> dict[str, dict[str, str]]:
    """For each script, the letter of it for every letter that looks the same."""
    table: dict[str, dict[str, str]] = {}
    for line in (DATA / "look_alikes.txt").read_text(encoding="utf-8").splitlines():
        group = line.split()
        for right in group:
            table.setdefault(script_of(right), {}).update({other: right for other in group if other != right})
    return table


def _with_right_letters(text: str, language: Language) -> tuple[str, list[Note]]:
    """A word that mixes scripts gets the letters of the language's where all strangers have a look-alike."""
    notes: list[Note] = []

    def mended(match: re.Match[str]) -> str:
        word = _plain_letters(match[0])
        scripts = {script_of(letter) for letter in word} - {""}
        right = [script for script in language.scripts if script in scripts]
        if len(scripts) > 1 and right:
            table = _look_alikes().get(right[0], {})
            strangers = [letter for letter in word if script_of(letter) not in ("", right[0])]
            if all(letter in table for letter in strangers):
                word = "".join(table[letter] if letter in strangers else letter for letter in word)
        if word != match[0]:
            notes.append(Note("look-alike", match[0], word))
        return word

    return _WORD.sub(mended, text), notes


def _plain_letters(word: str) -> str:
    """Mathematical, full-width and circled letters as plain ones; ligatures as their letters."""
    return "".join(
        unicodedata.normalize("NFKC", c) if c.isalpha() and unicodedata.decomposition(c).startswith("<") else c
        for c in word
    )


def _problems(text: str, language: Language) -> list[TextProblem]:
    problems = []
    # Latin words inside other scripts are read by the foreign rules, and noted.
    allowed = {"", "latin", *language.scripts}
    strangers: dict[str, Counter[str]] = {}
    pictures: Counter[str] = Counter()
    for character in text:
        script = script_of(character)
        if script not in allowed:
            strangers.setdefault(script, Counter())[character] += 1
        elif PICTURES.match(character):
            pictures[character] += 1
    problems += [_wrong_script(script, counts, language) for script, counts in strangers.items()]
    if pictures:
        detail = f"pictures have no reading: {described_counts(pictures)}; spell them out or remove them"
        problems.append(TextProblem("unknown characters", detail, dict(pictures)))
    return problems


def foreign_script(texts: Iterable[str], language: Language) -> str:
    """The script of most letters if the language is written in another, as `cyrillic` where it is English; else ""."""
    counts = Counter(script for text in texts for character in text if (script := script_of(character)))
    script, n = counts.most_common(1)[0] if counts else ("", 0)
    return script if script not in language.scripts and 2 * n > counts.total() else ""


def _wrong_script(script: str, counts: Counter[str], language: Language) -> TextProblem:
    shown = described_counts(Counter(dict(counts.most_common(5))))
    if language.code == "ja" and script == "cjk":
        way_out = "espeak-ng cannot read kanji: write the words in kana"
    else:
        others = ", ".join(languages_written_in(script)) or "another one"
        way_out = f"if this is its language, set language={others}; else write it in {' or '.join(language.scripts)}"
    detail = f"{script} letters where language={language.code} ({language.name}) is read: {shown}; {way_out}"
    return TextProblem("wrong script", detail, dict(counts))
