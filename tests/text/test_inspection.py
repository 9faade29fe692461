"""Texts that nobody should write and somebody will: each gets a reading or a problem, and what was dropped is said."""

import unicodedata

import pytest

from text.front_end import FrontEnd, Reading

FRONT_ENDS = {
    "English letters": FrontEnd.create(),
    "English named cleaners": FrontEnd.create(cleaners=["english_cleaners"]),
    "English phonemes": FrontEnd.create(text_input="phonemes"),
    "English in ARPAbet": FrontEnd.create(text_input="phonemes", symbol_set="nvidia"),
    "Russian letters": FrontEnd.create(language="ru"),
    "Russian phonemes": FrontEnd.create(language="ru", text_input="phonemes"),
    "German": FrontEnd.create(language="de", text_input="phonemes"),
    "Arabic": FrontEnd.create(language="ar", text_input="phonemes"),
    "Japanese": FrontEnd.create(language="ja", text_input="phonemes"),
    "Polish letters": FrontEnd.create(language="pl", corpus=["abc \u0105\u0107"]),
}
TEXTS = {
    "empty": "",
    "spaces": " \t\n ",
    "only punctuation": "... !?! \u00ab\u2026\u00bb",
    "mixed scripts": "Hello \u043c\u0438\u0440 \u0393\u03b5\u03b9\u03ac \u4f60\u597d",
    "look-alikes": "c\u0430t \u0421\u041eMP\u0423TER \u0437am\u043e\u043a",
    "emoji": "hi \U0001f600 \U0001f3f3\ufe0f\u200d\U0001f308",
    "only emoji": "\U0001f600",
    "5000 letters": "a" * 5000,
    "5000 characters of words": "word " * 1000,
    "5000 characters of Russian words": "\u0441\u043b\u043e\u0432\u043e " * 833,
    "right to left": "\u202e\u05e9\u05dc\u05d5\u05dd abc\u202c \u0645\u0631\u062d\u0628\u0627",
    "decomposed": "cafe\u0301 u\u0308ber \u0438\u0306 \u0435\u0308",
    "stacked marks": "z\u0301\u0302\u0303\u0304 x\u0336y\u0336",
    "marks alone": "\u0301 \u0308",
    "control characters": "\x00a\x07b\x1b[0mc\x7f",
    "byte-order mark and soft hyphens": "\ufeffhello\u200b wor\u00adld",
    "half of a pair": "a \ud800 b",
    "private use": "a \ue000\ue001 b",
    "line separators": "one\u2028two\x0bthree\r\nfour",
    "every ASCII sign": "a !\"#$%&'()*+,-./:;<=>?@[\\]^_`|~ b",
    "markup": "<b>bold</b> &amp; *stars* _lines_ # heading",
    "address": "http://a.b/c?d=e&f=g me@x.ru",
    "braces": "{ } {} {B {{a}} } {",
    "phonemes that are none": "{zzz} {AW7}",
    "digits": "1" * 90 + " 0x1F 1e10 3.14.15",
    "fractions and signs": "\u2116 5 \u00a7 3 10\u00b0C \u00bd \u20ac 5",
    "letter variants": "\U0001d400\U0001d401 \uff28\uff49 \ufb01ne \u24d0",
    "stress marks astray": "+ ++\u0430 \u0430+ \u0431+\u0432 \u0301",
    "odd letters": "\u00df \u1e9e \u0130 \u0131 \u017f \ua66e \u04d1 \u049b",
    "plus": "+",
}


def test_hostile_texts_are_read_or_refused_never_an_exception() -> None:
    for name, front_end in FRONT_ENDS.items():
        readings = front_end.read(list(TEXTS.values()))
        for text_name, reading in zip(TEXTS, readings, strict=True):
            assert reading.ids or reading.problems, (name, text_name)
            assert all(problem.detail for problem in reading.problems), (name, text_name)
            assert 0 not in reading.ids, (name, text_name)


@pytest.mark.parametrize("name", ["English letters", "English in ARPAbet", "Russian letters"])
def test_no_character_vanishes_without_a_word(name: str) -> None:
    front_end = FRONT_ENDS[name]
    for text_name, reading in zip(TEXTS, front_end.read(list(TEXTS.values())), strict=True):
        if not reading.problems:
            assert vanished(reading, front_end) == [], (text_name, reading.notes)


def vanished(reading: Reading, front_end: FrontEnd) -> list[str]:
    """Characters that are neither symbols of the reading nor in any note; letters and spaces are read, not kept."""
    said = front_end.text_of(reading.ids)
    said += "".join(note.what + note.reading for note in reading.notes)
    codes = [note.what for note in reading.notes if note.what.startswith("U+")]
    missing = []
    for character in unicodedata.normalize("NFC", reading.text):
        is_read = character.isalnum() or character.isspace() or front_end.table.fitted(character) is not None
        if not (is_read or character in said or any(code.startswith(f"U+{ord(character):04X}") for code in codes)):
            missing.append(character)
    return missing


@pytest.mark.parametrize(
    ("name", "text_name", "problem"),
    [
        ("English letters", "mixed scripts", "cyrillic letters where language=en (English) is read"),
        ("English letters", "only emoji", "pictures have no reading: '\U0001f600' (U+1F600 GRINNING FACE) 1 x"),
        ("English letters", "markup", "no symbol (nvidia) for '*' (U+002A ASTERISK) 2 x"),
        ("Russian letters", "5000 letters", "5000 letters or digits in a row, aaaaaaaaaaaaaaaaaaaa...; put spaces"),
        ("Russian letters", "odd letters", "no symbol (russian) for"),
        ("German", "right to left", "hebrew letters where language=de (German) is read"),
        ("Polish letters", "5000 characters of words", "no symbol (corpus) for"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_characters(name: str, text_name: str, problem: str) -> None:
    details = "\n".join(p.detail for p in FRONT_ENDS[name].read([TEXTS[text_name]])[0].problems)
    assert problem in details


@pytest.mark.parametrize(
    ("name", "text_name"),
    [
        ("English letters", "5000 letters"),
        ("English letters", "decomposed"),
        ("English letters", "control characters"),
        ("English phonemes", "5000 characters of words"),
        ("Russian letters", "5000 characters of Russian words"),
        ("Russian letters", "stress marks astray"),
        ("Russian letters", "fractions and signs"),
        ("German", "every ASCII sign"),
    ],
)
def test_what_can_be_read_is_read(name: str, text_name: str) -> None:
    text = TEXTS[text_name]
    if name == "English letters" and text_name == "decomposed":
        text = text[:-5]  # without the Russian letters
    assert FRONT_ENDS[name].read([text])[0].problems == ()
