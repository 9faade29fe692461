"""Text files in another encoding than UTF-8 are named as such, wherever a user may name a file."""

from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile

from common.encodings import NotText
from common.errors import UserError
from common.files import read_given_text
from corpus.importers.recognise import read_folder
from hparams import resolve_hparams
from speech.delivery import read_sources
from support.speech_like import RATE, voice_like
from text.__main__ import main as read_texts
from text.pronunciations import read_pronunciations
from text.symbol_sets import read_symbols

ENGLISH = "wavs/u0.wav|Nobody knows where.\n"
RUSSIAN = "\u041d\u0438\u043a\u0442\u043e \u043d\u0435 \u0437\u043d\u0430\u0435\u0442, \u0433\u0434\u0435.\n"
WIDE = ["utf-16", "utf-16-le", "utf-16-be", "utf-32"]


@pytest.mark.parametrize("encoding", WIDE)
@pytest.mark.parametrize("text", [ENGLISH, RUSSIAN, "one"])
def test_utf_16_is_named_with_and_without_its_mark(encoding: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(text.encode(encoding))
    with pytest.raises(NotText, match=r"is UTF-(16|32)(LE|BE)?, and not UTF-8; .*iconv -f UTF-(16|32)"):
        read_given_text(tmp_path / "a.txt")


@pytest.mark.parametrize("text", [ENGLISH, RUSSIAN, "\u4eca\u5929\u5929\u6c14\u5f88\u597d", "a\0b\n", ""])
def test_utf_8_is_read_even_with_a_stray_nul(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(text.encode("utf-8"))
    assert read_given_text(tmp_path / "a.txt") == text


READERS: dict[str, Callable[[Path], object]] = {
    "pronunciations": read_pronunciations,
    "symbols": read_symbols,
    "a text to say": lambda path: read_sources([], [path], stdin=None),
    "hyperparameters": lambda path: resolve_hparams(hparams_file=path),
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS.keys())
@pytest.mark.parametrize(("encoding", "said"), [("utf-16-le", "is UTF-16LE"), ("cp1251", "is not UTF-8 text")])
def test_whoever_reads_it_says_so(
    read: Callable[[Path], object], encoding: str, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(f"batch_size: 3  # {RUSSIAN}".encode(encoding))
    with pytest.raises(UserError, match=said):
        read(path)


def test_a_ledger_of_such_a_list_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "train.csv").write_bytes(ENGLISH.encode("utf-16-le"))
    assert read_texts(["ledger", str(tmp_path / "train.csv")]) == 3
    assert "train.csv is UTF-16LE" in capsys.readouterr().err


@pytest.mark.parametrize(("encoding", "said"), [("utf-16", "is UTF-16"), ("cp1251", "it looks like CP1251")])
def test_an_import_names_the_encoding_and_not_an_empty_text(encoding: str, said: str, tmp_path: Path) -> None:
    for i in range(2):
        soundfile.write(tmp_path / f"u{i}.wav", voice_like(0.5), RATE)
    (tmp_path / "u0.txt").write_text("Nobody knows.")
    (tmp_path / "u1.txt").write_bytes(RUSSIAN.encode(encoding))
    found = read_folder(tmp_path)
    assert [item.text for item in found.items] == ["Nobody knows."]
    assert [(f.kind, f.source) for f in found.findings] == [("encoding", tmp_path / "u1.txt")]
    assert said in found.findings[0].message
