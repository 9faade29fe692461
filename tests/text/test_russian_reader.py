"""Russian: numbers, stress, the letter yo, sounds by rule. Models run in their child process, started once."""

import re
from pathlib import Path

import pytest

from support.paths import REPOSITORY
from text.front_end import FrontEnd
from text.russian_sounds import ipa_of_russian

RUSSIAN = FrontEnd.create(language="ru")
PHONEMES = FrontEnd.create(language="ru", text_input="phonemes")
TABLE = REPOSITORY / "docs" / "russian_sentences.md"
ROW = re.compile(r"^\| (\d+) \| (.+?) \| (.+?) \| (right|wrong.*) \|$", re.M)


def table_rows() -> list[tuple[str, str, str]]:
    return [(text, reading, verdict) for _, text, reading, verdict in ROW.findall(TABLE.read_text(encoding="utf-8"))]


def read(text: str) -> str:
    return RUSSIAN.text_of(RUSSIAN.symbol_ids(text))


def notes(text: str) -> list[tuple[str, str, str]]:
    return [(note.kind, note.what, note.reading) for note in RUSSIAN.read([text])[0].notes]


def test_the_table_of_forty_sentences_says_what_the_front_end_makes_of_them() -> None:
    rows = table_rows()
    assert len(rows) == 40
    readings = RUSSIAN.read([text for text, _, _ in rows])
    assert [dict(reading.stages)["stressed"] for reading in readings] == [reading for _, reading, _ in rows]


def test_the_table_counts_right_and_wrong_as_its_lines_do() -> None:
    right = sum(verdict == "right" for _, _, verdict in table_rows())
    assert f"**{right} right, {40 - right} wrong.**" in TABLE.read_text(encoding="utf-8")


# The tests below write Russian in a file of its own, as sources are ASCII.
CASES = dict(
    line.split(" = ", 1)
    for line in (REPOSITORY / "tests" / "text" / "russian_cases.txt").read_text(encoding="utf-8").splitlines()
    if " = " in line
)


def case(name: str) -> list[str]:
    return [part.strip() for part in CASES[name].split("|")]


@pytest.mark.parametrize("name", ["plus", "accent", "accent deprecated", "both marks", "capitals"])
def test_stress_that_the_author_wrote_wins(name: str) -> None:
    text, reading = case(name)
    assert read(text) == reading


def test_quotes_dashes_and_signs_are_read_or_kept() -> None:
    text, reading = case("signs")
    assert read(text) == reading


KINDS = ["restored yo", "homograph", "unknown word", "foreign word", "written out", "look-alike"]


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_guess_is_noted(name: str) -> None:
    text, what, reading = case(name)
    assert (name, what, reading) in notes(text)


def test_words_of_one_syllable_carry_no_mark() -> None:
    text, reading = case("one syllable")
    assert read(text) == reading


def test_other_cleaners_leave_letters_and_the_authors_marks_alone() -> None:
    text, reading = case("cleaners")
    front_end = FrontEnd.create(language="ru", cleaners=["basic_cleaners"])
    assert front_end.text_of(front_end.symbol_ids(text)) == reading


def test_own_stressed_spellings_beat_the_model_and_the_normaliser(tmp_path: Path) -> None:
    content, text, reading = case("own spelling")
    path = tmp_path / "own.tsv"
    path.write_text(content.replace("->", "\t").replace(";", "\n"), encoding="utf-8")
    front_end = FrontEnd.create(language="ru", pronunciations=path)
    assert front_end.text_of(front_end.symbol_ids(text)) == reading


def test_phonemes_in_braces_are_those_of_the_voice() -> None:
    text, reading = case("braces")
    assert PHONEMES.text_of(PHONEMES.symbol_ids(text)) == reading
    (text,) = case("braces unknown")
    assert "is not among the symbols (russian)" in RUSSIAN.read([text])[0].problems[0].detail


SOUNDS = [(name, *case(name)) for name in CASES if name.startswith("sound ")]


@pytest.mark.parametrize(("rule", "spelling", "sounds"), SOUNDS, ids=[name for name, *_ in SOUNDS])
def test_sounds_follow_from_stressed_letters(rule: str, spelling: str, sounds: str) -> None:
    assert ipa_of_russian(spelling) == sounds


def test_every_sound_that_the_rules_write_is_an_ipa_symbol() -> None:
    everything = "".join(ipa_of_russian(reading) for _, reading, _ in table_rows())
    assert [sound for sound in set(everything) if PHONEMES.table.fitted(sound) is None] == []
    assert not re.search("[\u0400-\u04ff]", everything)
