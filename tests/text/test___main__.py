"""`python -m text`: every stage of a text, the ledger of a corpus, the list of languages."""

import subprocess
import sys
from pathlib import Path

import pytest

from support.paths import REPOSITORY
from text.__main__ import main
from text.ledger import Ledger
from text.notes import Note

RUSSIAN = "\u0412 1984 \u0433. \u043e\u043d \u043e\u0442\u043a\u0440\u044b\u043b \u0437\u0430\u043c\u043e\u043a."


def filelist(tmp_path: Path, content: str) -> Path:
    path = tmp_path / "train.csv"
    path.write_text(content, encoding="utf-8")
    return path


def test_every_stage_from_text_to_ids_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([RUSSIAN, "--language", "ru"]) == 0
    out = capsys.readouterr().out
    stages = dict(line.split(maxsplit=1) for line in out.splitlines() if line[0] in "twsi")
    assert list(stages)[:5] == ["text", "written", "stressed", "symbols", "ids"]
    assert "homograph" in out
    assert all(part.isdigit() for part in stages["ids"].split())


def test_it_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "text", "Hello."]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert "symbols     hello." in result.stdout


def test_phonemes_are_a_switch(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["I read it yesterday.", "--text-input", "phonemes"]) == 0
    assert "{AY1} {R EH1 D} {IH0 T} {Y EH1 S T ER0 D EY2}." in capsys.readouterr().out


def test_settings_may_come_as_hparams_and_a_switch_goes_before(capsys: pytest.CaptureFixture[str]) -> None:
    hparams = "text_input=phonemes,batch_size=8,text_cleaners=[basic_cleaners]"
    assert main(["It is 5.", "--hparams", hparams]) == 3
    assert "'5' (U+0035 DIGIT FIVE)" in capsys.readouterr().out
    assert main(["It is", "--hparams", hparams, "--text-input", "characters"]) == 0
    assert "symbols     it is" in capsys.readouterr().out


def test_a_wrong_hparam_is_refused_as_in_training(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hello", "--hparams", "batch_sice=8"]) == 2
    assert "batch_sice" in capsys.readouterr().err


def test_several_texts_are_shown_one_below_the_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["one", "two"]) == 0
    assert capsys.readouterr().out.count("ids") == 2


def test_a_text_that_cannot_be_read_says_why_and_exits_as_bad_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([RUSSIAN]) == 3
    assert "set language=ru" in capsys.readouterr().out


def test_a_wrong_setting_is_one_line_on_stderr_and_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["hello", "--language", "klingonish"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "language=klingonish" in captured.err and "`python -m text languages` lists" in captured.err


def test_languages_lists_codes_and_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["languages"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["en                English", "ru                Russian"]
    assert len(lines) > 100


def test_the_ledger_counts_guesses_with_their_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = filelist(tmp_path, "a.wav|caf\u00e9 caf\u00e9\nb.wav|plain\nc.wav|a caf\u00e9|speaker\n")
    assert main(["ledger", str(path)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("3 texts: 3 transliterated")
    assert f"    3 x  \u00e9 -> e   {path}:1, {path}:3" in out


def test_the_ledger_reads_ljspeechs_third_column(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = filelist(tmp_path, 'LJ001-0001|1 "old" book|one "old" book\n')
    assert main(["ledger", str(path)]) == 0
    assert '2 x  " -> nothing' in capsys.readouterr().out


def test_the_ledger_writes_pronunciations_that_can_be_read_back(tmp_path: Path) -> None:
    path, output = filelist(tmp_path, "a.wav|Zorblatt refused to refuse the refuse.\n"), tmp_path / "own.tsv"
    settings = ["--text-input", "phonemes"]
    assert main(["ledger", str(path), "-o", str(output), *settings]) == 0
    lines = output.read_text(encoding="utf-8").splitlines()
    assert "zorblatt\t{Z AO1 R B L AE0 T}" in lines
    assert all(line.startswith("#") for line in lines if "refuse\t" in line), "a homograph has no one reading"
    assert main(["Zorblatt", "--pronunciations", str(output), *settings]) == 0


def test_the_ledger_never_overwrites_corrections(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, output = filelist(tmp_path, "a.wav|one\n"), tmp_path / "own.tsv"
    output.write_text("precious\tx\n", encoding="utf-8")
    assert main(["ledger", str(path), "-o", str(output)]) == 2
    assert "exists, and may hold corrections" in capsys.readouterr().err
    assert output.read_text(encoding="utf-8") == "precious\tx\n"


def test_lines_that_cannot_be_read_are_all_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = filelist(tmp_path, f"a.wav|one & two\nb.wav|fine\nc.wav|{RUSSIAN}\n")
    assert main(["ledger", str(path)]) == 3
    err = capsys.readouterr().err
    assert f"{path}:1: no symbol (nvidia) for '&'" in err
    assert f"{path}:3: cyrillic letters" in err
    assert f"{path}:2" not in err


@pytest.mark.parametrize("content", [None, "no columns here\n"])
def test_a_filelist_that_is_none_is_one_line(
    content: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = filelist(tmp_path, content) if content else tmp_path / "missing.csv"
    assert main(["ledger", str(path)]) == 3
    assert capsys.readouterr().err.count("\n") == 1


def test_a_ledger_puts_what_is_worth_correcting_first() -> None:
    ledger = Ledger()
    for place, note in enumerate([Note("dropped", '"', "", 5), Note("homograph", "read", "R IY1 D")] * 4):
        ledger.add([note], place=f"f:{place}")
    ledger.add([Note("unknown word", "zorb", "Z")], place="f:9")
    counted = [part.partition(" (")[0] for part in ledger.summary().split("), ")]
    assert counted == ["1 unknown word", "4 homograph", "20 dropped"]
    assert "4 homograph (one spelling, several readings; chosen by the sentence)" in ledger.summary()
    assert [entry.kind for entry in ledger.entries()] == ["unknown word", "homograph", "dropped"]
    assert ledger.entries("homograph")[0].places == ("f:1", "f:3", "f:5")
