"""Filelists: formats, where recordings are found, what may not be reached, and how bad lines are reported."""

from pathlib import Path

import pytest

from common.errors import DataError
from corpus.filelists import Filelist, counts_by_kind, read_filelist


def make_corpus(folder: Path, *names: str) -> Path:
    """A folder with an (empty) file for each name: lists are read before any audio is."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def read(folder: Path, content: str | bytes, *, at: str = "train.txt", **options: object) -> Filelist:
    path = folder / at
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    settings = {"dataset_path": folder} | options
    return read_filelist(path, **settings)  # type: ignore[arg-type]


def only_problem(filelist: Filelist) -> tuple[str, str]:
    assert len(filelist.problems) == 1, filelist.problems
    return filelist.problems[0].kind, filelist.problems[0].message


# ---- formats


@pytest.mark.parametrize(
    ("line", "text", "speaker"),
    [
        ("wavs/a.wav|Hello there.", "Hello there.", None),
        ("wavs/a.wav|Hello there.|anna", "Hello there.", "anna"),
        ("a|Dr. Who|Doctor Who", "Doctor Who", None),
        ("a|Hello there.", "Hello there.", None),
        ("wavs/a.wav | Hello there. ", "Hello there.", None),
    ],
)
def test_first_column_decides_the_format(tmp_path: Path, line: str, text: str, speaker: str | None) -> None:
    utterance = read(make_corpus(tmp_path, "wavs/a.wav"), line).utterances[0]
    assert (utterance.utterance_id, utterance.text, utterance.speaker) == ("a", text, speaker)
    assert utterance.audio_path == (tmp_path / "wavs/a.wav").resolve()


@pytest.mark.parametrize("extension", [".wav", ".flac", ".ogg", ".mp3"])
def test_ljspeech_id_finds_any_audio_extension(tmp_path: Path, extension: str) -> None:
    utterance = read(make_corpus(tmp_path, f"wavs/LJ001-0001{extension}"), "LJ001-0001|a|b").utterances[0]
    assert utterance.audio_path.suffix == extension


def test_byte_order_mark_crlf_and_blank_lines_change_nothing(tmp_path: Path) -> None:
    make_corpus(tmp_path, "wavs/a.wav", "wavs/b.wav")
    plain = read(tmp_path, "wavs/a.wav|one\nwavs/b.wav|two\n")
    windows = read(tmp_path, b"\xef\xbb\xbfwavs/a.wav|one\r\n\r\n   \r\nwavs/b.wav|two\r\n")
    assert [u.text for u in windows.utterances] == [u.text for u in plain.utterances]
    assert windows.problems == ()
    assert [u.line for u in windows.utterances] == [1, 4]


def test_line_that_starts_with_a_hash_is_no_comment(tmp_path: Path) -> None:
    assert read(make_corpus(tmp_path, "#1.wav"), "#1.wav|first").utterances[0].utterance_id == "#1"


def test_same_file_name_in_two_folders_gives_two_ids(tmp_path: Path) -> None:
    filelist = read(make_corpus(tmp_path, "anna/1.wav", "bert/1.wav"), "anna/1.wav|x\nbert/1.wav|x")
    assert [u.utterance_id for u in filelist.utterances] == ["anna/1", "bert/1"]


# ---- where recordings are found


def test_list_in_filelists_names_wavs_below_dataset_path(tmp_path: Path) -> None:
    filelist = read(make_corpus(tmp_path, "wavs/a.flac"), "wavs/a.flac|x", at="filelists/train.txt")
    assert filelist.utterances[0].audio_path == (tmp_path / "wavs/a.flac").resolve()


def test_list_below_dataset_path_names_wavs_beside_itself(tmp_path: Path) -> None:
    filelist = read(make_corpus(tmp_path, "dataset/wavs/a.wav"), "wavs/a.wav|x", at="dataset/train.csv")
    assert filelist.utterances[0].audio_path == (tmp_path / "dataset/wavs/a.wav").resolve()


def test_dataset_path_wins_over_the_folder_of_the_list(tmp_path: Path) -> None:
    filelist = read(make_corpus(tmp_path, "wavs/a.wav", "sub/wavs/a.wav"), "wavs/a.wav|x", at="sub/train.txt")
    assert filelist.utterances[0].audio_path == (tmp_path / "wavs/a.wav").resolve()


# ---- what may not be reached


@pytest.mark.parametrize("column", ["../secret.wav", "wavs/../../secret.wav", "ABSOLUTE"])
def test_path_out_of_the_data_folders_is_refused(tmp_path: Path, column: str) -> None:
    make_corpus(tmp_path, "secret.wav", "data/wavs/a.wav")
    column = column.replace("ABSOLUTE", str(tmp_path / "secret.wav"))
    kind, message = only_problem(read(tmp_path / "data", f"{column}|x"))
    assert kind == "unsafe path"
    assert f"data_roots=[{tmp_path.resolve()}]" in message


def test_ljspeech_id_cannot_climb_out(tmp_path: Path) -> None:
    make_corpus(tmp_path, "secret.wav", "data/wavs/a.wav")
    assert only_problem(read(tmp_path / "data", "../../secret|x|x"))[0] == "unsafe path"


@pytest.mark.parametrize("linked", ["wavs/a.wav", "wavs"])
def test_link_out_of_the_data_folders_is_refused_until_its_root_is_listed(tmp_path: Path, linked: str) -> None:
    make_corpus(tmp_path, "other/wavs/a.wav", "data/readme")
    (tmp_path / "data" / linked).parent.mkdir(exist_ok=True)
    (tmp_path / "data" / linked).symlink_to(tmp_path / "other" / linked)
    assert only_problem(read(tmp_path / "data", "wavs/a.wav|x"))[0] == "unsafe path"
    trusted = read(tmp_path / "data", "wavs/a.wav|x", data_roots=[tmp_path / "other"])
    assert trusted.utterances[0].audio_path == (tmp_path / "other/wavs/a.wav").resolve()


def test_folder_whose_name_begins_like_dataset_path_is_outside(tmp_path: Path) -> None:
    make_corpus(tmp_path, "data-private/a.wav", "data/readme")
    assert only_problem(read(tmp_path / "data", "../data-private/a.wav|x"))[0] == "unsafe path"


def test_folder_of_a_list_outside_dataset_path_is_not_trusted(tmp_path: Path) -> None:
    make_corpus(tmp_path, "elsewhere/a.wav", "data/readme")
    filelist = read(tmp_path, "a.wav|x", at="elsewhere/train.txt", dataset_path=tmp_path / "data")
    assert only_problem(filelist)[0] == "unsafe path"


def test_dataset_path_may_itself_be_a_link(tmp_path: Path) -> None:
    make_corpus(tmp_path, "disk/wavs/a.wav")
    (tmp_path / "data").symlink_to(tmp_path / "disk")
    assert read(tmp_path / "data", "wavs/a.wav|x").problems == ()


# ---- bad lines


@pytest.mark.parametrize(
    ("line", "kind", "detail"),
    [
        (b"wavs/a.wav", "malformed", "1 columns"),
        (b"wavs/a.wav|x|y|z", "malformed", "4 columns"),
        (b"|text", "malformed", "2 columns"),
        (b"wavs/a.wav|Hello there.|Hello there.", "malformed", "sentence where a speaker"),
        (b"wavs/a.wav|  ", "empty text", "nothing to read"),
        (b"a|written|", "empty text", "nothing to read"),
        (b"wavs/gone.wav|x", "missing file", "wavs/gone.wav"),
        (b"gone|x", "missing file", "gone{.wav,.flac,.ogg,.mp3}"),
        (b"wavs|x", "missing file", "no such file"),
        (b"a" * 300 + b"|x", "missing file", "no such file"),
        (b"wavs/a.wav|x\0y", "NUL byte", "column 13"),
        (b"wavs/a.wav|caf\xe9", "encoding", "b'\\\\xe9'"),
    ],
)
def test_bad_line_is_named_with_its_place(tmp_path: Path, line: bytes, kind: str, detail: str) -> None:
    make_corpus(tmp_path, "wavs/a.wav", "wavs/b.wav")
    filelist = read(tmp_path, b"wavs/b.wav|fine\n" + line)
    found, message = only_problem(filelist)
    assert found == kind
    assert message.startswith(f"{tmp_path / 'train.txt'}:2: ")
    assert detail.replace("\\\\", "\\") in message
    assert [u.text for u in filelist.utterances] == ["fine"]


def test_second_line_for_a_recording_names_the_first(tmp_path: Path) -> None:
    make_corpus(tmp_path, "wavs/a.wav")
    kind, message = only_problem(read(tmp_path, "wavs/a.wav|x\n./wavs/a.wav|y"))
    assert kind == "duplicate"
    assert "line 1" in message


def test_line_separators_inside_a_text_do_not_split_it(tmp_path: Path) -> None:
    filelist = read(make_corpus(tmp_path, "wavs/a.wav"), "wavs/a.wav|one\u2028two")
    assert len(filelist.utterances) + len(filelist.problems) == 1


def test_all_problems_are_collected_and_counted_by_kind(tmp_path: Path) -> None:
    make_corpus(tmp_path, "wavs/a.wav")
    filelist = read(tmp_path, "wavs/a.wav|fine\nwavs/x.wav|x\nwavs/y.wav|x\nnonsense")
    assert counts_by_kind(filelist.problems) == "2 missing file, 1 malformed"


def test_utf16_list_is_refused_as_a_whole(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is UTF-16; save it as UTF-8"):
        read(tmp_path, "wavs/a.wav|x".encode("utf-16"))


def test_folder_in_place_of_a_list_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read the filelist"):
        read_filelist(tmp_path, dataset_path=tmp_path)
