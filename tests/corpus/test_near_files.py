"""Claims about files that are there under another name."""

from pathlib import Path

import pytest

from corpus.near_files import FileFinder, list_that_is_there


def test_the_index_of_near_files_never_leaves_its_folders(tmp_path: Path) -> None:
    (tmp_path / "data" / "wavs").mkdir(parents=True)
    (tmp_path / "secret.wav").touch()
    (tmp_path / "data" / "wavs" / "A b.flac").touch()
    finder = FileFinder([tmp_path / "data"])
    assert finder.near("../secret.wav") is None
    assert finder.near("secret.wav") is None
    near = finder.near("WAVS\\a B.wav")
    assert near is not None and near.path == tmp_path / "data" / "wavs" / "A b.flac"
    assert near.difference == "backslashes, extension"


def test_a_list_under_another_spelling_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "Train.csv").touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    there = tmp_path / "Train.csv"
    assert list_that_is_there(tmp_path / "train.csv") == f", but {there} is there"
    assert list_that_is_there(tmp_path / "train.txt") == f", but {there} is there"
    assert list_that_is_there(Path("~/Train.csv")).startswith(f", but {there} is there (nothing puts your home")
    assert list_that_is_there(tmp_path) == ", but a folder"
    (tmp_path / "Data" / "lists").mkdir(parents=True)
    inner = tmp_path / "Data" / "lists" / "val.txt"
    inner.touch()
    for said in (f"{tmp_path}/Data\\\\lists\\val.txt", f"{tmp_path}/data/Lists/VAL.csv", f'"{inner}"'):
        assert list_that_is_there(Path(said)) == f", but {inner} is there"
    assert list_that_is_there(tmp_path / "val.csv") == list_that_is_there(tmp_path / "no" / "train.csv") == ""
