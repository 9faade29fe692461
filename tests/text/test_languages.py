"""Languages by espeak-ng in a process of its own, five sentences each of ten, through `python -m text`'s own main."""

import difflib
import os
import re
import subprocess
import sys
from pathlib import Path
from statistics import mean

import pytest

from common.errors import UserError
from support.paths import REPOSITORY
from text.__main__ import main
from text.child import _shared
from text.front_end import FrontEnd
from text.languages import language_of, languages

MARKS = str.maketrans("", "", "\u02c8\u02cc\u02d0\u0306\u032f\u0361 -0123456789")
# One sound written in two ways: how dictionaries and espeak-ng differ from each other, not from the language.
SAME = str.maketrans({"\u0261": "g", "\u027e": "r", "\u0281": "r", "\u0279": "r", "\u0251": "a", "\u0250": "a"})
# Share of equal sounds. Other conventions (ts or c, v or w) cost up to a quarter of a word; two words share little.
ALIKE, UNLIKE = 0.7, 0.35


def sections() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in (REPOSITORY / "tests" / "text" / "ten_languages.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            found[line.strip("[]")] = []
        elif line and found:
            found[list(found)[-1]].append(line)
    return found


SECTIONS = sections()


def plain(ipa: str) -> str:
    return ipa.translate(MARKS).translate(SAME)


def likeness(heard: list[str], wanted: list[str]) -> float:
    pairs = zip(heard, wanted, strict=True)
    return mean(difflib.SequenceMatcher(None, plain(a), plain(b), autojunk=False).ratio() for a, b in pairs)


@pytest.mark.parametrize("code", SECTIONS)
def test_five_sentences_are_read_without_flags_or_foreign_letters(
    code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    sentences = [line for line in SECTIONS[code] if " = " not in line]
    assert len(sentences) == 5
    assert main([*sentences, "--language", code, "--text-input", "phonemes"]) == 0
    shown = [line for line in capsys.readouterr().out.splitlines() if line.startswith("symbols")]
    assert len(shown) == 5
    for line in shown:
        assert not re.search(r"\([a-z-]+\)", line), "a language-switch flag leaked"
        assert not re.search("[\u0400-\u04ff\u0900-\u097f\u4e00-\u9fff]", line), "letters that nobody read"
        assert "\u02c8" in line or code == "fr", "no stress"


@pytest.mark.parametrize("code", SECTIONS)
def test_words_sound_as_dictionaries_say(code: str) -> None:
    words = dict(line.split(" = ") for line in SECTIONS[code] if " = " in line)
    assert len(words) == 5
    front_end = FrontEnd.create(language=code, text_input="phonemes")
    heard = [front_end.text_of(reading.ids) for reading in front_end.read(list(words))]
    wanted = list(words.values())
    assert likeness(heard, wanted) >= ALIKE, heard
    assert likeness(heard, [*wanted[1:], wanted[0]]) <= UNLIKE, "the measure tells nothing"


def test_what_another_language_read_is_noted_and_its_flags_are_gone() -> None:
    front_end = FrontEnd.create(language="uk", text_input="phonemes")
    reading = front_end.read(["\u0446\u0435 hello \u0442\u0430\u043c"])[0]
    assert "(" not in front_end.text_of(reading.ids)
    assert [note.kind for note in reading.notes] == ["language switch"]
    assert "hello" in reading.notes[0].what


def test_punctuation_survives_where_it_stood() -> None:
    front_end = FrontEnd.create(language="es", text_input="phonemes")
    read = front_end.text_of(front_end.symbol_ids("\u00bfQu\u00e9? \u00a1S\u00ed, no; ya!"))
    signs = [s for s in read if s in "\u00bf?\u00a1,;!"]
    assert signs == ["\u00bf", "?", "\u00a1", ",", ";", "!"]


def test_what_espeak_has_no_ipa_for_never_looks_like_punctuation() -> None:
    front_end = FrontEnd.create(language="cmn", text_input="phonemes")
    assert "." not in front_end.text_of(front_end.symbol_ids("\u4e16\u754c"))  # shi, which it writes "s.i."


def test_japanese_kanji_are_refused_with_the_reason() -> None:
    front_end = FrontEnd.create(language="ja", text_input="phonemes")
    problems = front_end.read(["\u3053\u3093\u306b\u3061\u306f\u4e16\u754c"])[0].problems
    assert [problem.kind for problem in problems] == ["wrong script"]
    assert "espeak-ng cannot read kanji: write the words in kana" in problems[0].detail


def test_the_gpl_library_is_never_loaded_into_our_process() -> None:
    program = (
        "from text.front_end import FrontEnd;"
        "f = FrontEnd.create(language='de', text_input='phonemes'); assert f.symbol_ids('Guten Tag');"
        "import sys; print('espeak' in open('/proc/self/maps').read(), 'espeakng_loader' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False False"


@pytest.mark.parametrize(
    ("written", "code"), [("pt_BR", "pt-br"), ("zh", "cmn"), ("FR-fr", "fr"), ("no", "nb"), ("en-US", "en-us")]
)
def test_usual_spellings_of_language_codes_are_understood(written: str, code: str) -> None:
    assert language_of(written).code == code


def test_a_language_by_its_name_is_refused_with_its_code() -> None:
    with pytest.raises(UserError, match=r"nearest: ru \(Russian\)"):
        language_of("russian")


def test_espeak_has_a_voice_for_every_language_of_the_table() -> None:
    import espeakng_loader

    folder = Path(espeakng_loader.get_data_path()) / "lang"
    voices = {name.lower() for _, _, names in os.walk(folder) for name in names}
    assert set(languages()) - voices == {"en-gb"}  # which it calls en


def test_a_voice_of_british_english_reads_as_such() -> None:
    front_end = FrontEnd.create(language="en-gb", text_input="phonemes")
    assert front_end.text_of(front_end.symbol_ids("hot water")) == "h\u02c8\u0252t w\u02c8\u0254\u02d0t\u0259"


def test_one_process_serves_all_front_ends_of_a_language() -> None:
    before = len(_shared)
    for _ in range(2):
        FrontEnd.create(language="fi", text_input="phonemes").symbol_ids("kiitos")
    assert len(_shared) == before + 1
