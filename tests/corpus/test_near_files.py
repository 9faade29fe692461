"""Claims about files that are there under another name."""

from pathlib import Path

from corpus.near_files import FileFinder


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
