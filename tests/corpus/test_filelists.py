"""Filelists: formats, where recordings are found, what may not be reached, and how bad lines are reported."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from common.errors import DataError
from corpus.demo.builder import ensure_demo_corpus
from corpus.demo.sentences import DemoSentences
from corpus.doctor import Examination, examine
from corpus.filelists import Filelist, data_error, read_filelist, usable_filelists
from corpus.findings import counts_by_kind
from corpus.measuring import MeasureIndex
from support.corpora import write_corpus
from support.hostile_lists import good_lines
from support.speech_like import RATE, voice_like


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
    utterance = read(make_corpus(tmp_path, f"wavs/LJ001-0001{extension}"), "LJ001-0001|Mr. Fox|Mister Fox").utterances[
        0
    ]
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
        (b"wavs/a.wav", "columns", "one column"),
        (b"wavs/a.wav|x|y|z", "columns", "4 columns"),
        (b"|text", "columns", "names no recording"),
        (b"wavs/a.wav|Hello there.|Hello there.", "speaker", "sentence where a speaker"),
        (b"wavs/a.wav|  ", "empty text", "nothing to read"),
        (b"a|written|", "empty text", "nothing to read"),
        (b"wavs/gone.wav|x", "missing file", "wavs/gone.wav"),
        (b"gone|x", "missing file", "gone"),
        (b"wavs|x", "missing file", "no such file"),
        (b"a" * 300 + b"|x", "missing file", "no such file"),
        (b"wavs/a.wav|x\0y", "control character", "U+0000"),
    ],
)
def test_bad_line_is_named_with_its_place(tmp_path: Path, line: bytes, kind: str, detail: str) -> None:
    fine = [f"wavs/{i}.wav|It is {i}.\n" for i in range(5)]  # enough to see which columns there are
    make_corpus(tmp_path, "wavs/a.wav", *(f"wavs/{i}.wav" for i in range(5)))
    filelist = read(tmp_path, "".join(fine).encode() + line)
    found, message = only_problem(filelist)
    assert found == kind
    assert message.startswith(f"{tmp_path / 'train.txt'}:6: ")
    assert detail in message
    assert len(filelist.utterances) == 5


def test_second_line_for_a_recording_names_the_first(tmp_path: Path) -> None:
    make_corpus(tmp_path, "wavs/a.wav")
    kind, message = only_problem(read(tmp_path, "wavs/a.wav|x\n./wavs/a.wav|y"))
    assert kind == "duplicate"
    assert "line 1" in message


def test_line_separators_inside_a_text_do_not_split_it(tmp_path: Path) -> None:
    filelist = read(make_corpus(tmp_path, "wavs/a.wav"), "wavs/a.wav|one\u2028two")
    assert len(filelist.utterances) + len(filelist.problems) == 1


def test_all_problems_are_collected_and_counted_by_kind(tmp_path: Path) -> None:
    names = [f"wavs/{name}.wav" for name in "abcdexy"]
    make_corpus(tmp_path, *names[:5])
    filelist = read(tmp_path, "\n".join([*(f"{name}|fine" for name in names), "nonsense"]))
    assert counts_by_kind(filelist.problems) == "2 missing file, 1 columns"


def test_utf16_list_is_refused_as_a_whole(tmp_path: Path) -> None:
    kind, message = only_problem(read(tmp_path, "wavs/a.wav|It is x.".encode("utf-16")))
    assert kind == "encoding" and "UTF-16" in message and "UTF-8" in message


def test_folder_in_place_of_a_list_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read the filelist"):
        read_filelist(tmp_path, dataset_path=tmp_path)


# ---- lists with their recordings


def examined(*paths: Path, dataset_path: Path) -> Examination:
    index = MeasureIndex(dataset_path / "index.json")
    return examine(paths, dataset_path=dataset_path, hash_of=str, index=index)


def test_good_lines_become_the_utterances_that_the_reader_gives(tmp_path: Path) -> None:
    folder = write_corpus(tmp_path / "data")
    lists = [folder / "train.txt", folder / "val.txt"]
    usable = usable_filelists(examined(*lists, dataset_path=folder))
    assert usable == tuple(read_filelist(path, dataset_path=folder) for path in lists)


def test_bad_lines_become_problems_and_the_rest_stays(tmp_path: Path) -> None:
    (tmp_path / "wavs").mkdir()
    for i in range(8):
        soundfile.write(tmp_path / "wavs" / f"u{i}.wav", voice_like(1.0 + 0.05 * i, seed=i), RATE)
    soundfile.write(tmp_path / "wavs" / "u2.wav", np.zeros(RATE), RATE)
    soundfile.write(tmp_path / "wavs" / "u3.wav", 12 * voice_like(1.2).clip(-0.02, 0.02), RATE)
    (tmp_path / "train.csv").write_text("\n".join([*good_lines(), "wavs/u9.wav|Nobody."]))
    found = examined(tmp_path / "train.csv", dataset_path=tmp_path)
    (usable,) = usable_filelists(found)
    assert [utterance.line for utterance in usable.utterances] == [1, 2, 4, 5, 6, 7, 8]
    assert [problem.kind for problem in usable.problems] == ["silent", "missing file"]
    error = data_error(usable.problems)
    assert isinstance(error, DataError) and "2 unusable lines in the filelists (1 silent, 1 missing file)" in str(error)
    warned = [(finding.line, finding.kind) for finding in found.findings if finding.severity == "warning"]
    assert warned == [(4, "clipped")]


def test_the_demo_voice_gives_no_finding(tmp_path: Path) -> None:
    said = DemoSentences(("My window is yellow.", "The horse is here."), ("It is windy.",), ("I see a dog.",))
    corpus = ensure_demo_corpus(tmp_path / "cache", sentences=said)
    found = examined(corpus.training_files, corpus.validation_files, dataset_path=corpus.root)
    assert [finding.message for finding in found.findings] == []


def test_lists_of_mels_are_read_without_measuring(tmp_path: Path) -> None:
    (tmp_path / "mels").mkdir()
    for i in range(3):
        np.save(tmp_path / "mels" / f"u{i}.npy", np.zeros((80, 10), np.float32))
    (tmp_path / "train.csv").write_text("".join(f"mels/u{i}.npy|{line.split('|')[1]}\n" for i, line in
                                                enumerate(good_lines(3))))  # fmt: skip
    index = MeasureIndex(tmp_path / "index.json")
    found = examine([tmp_path / "train.csv"], dataset_path=tmp_path, hash_of=str, index=index, names_mels=True)
    (usable,) = usable_filelists(found)
    assert len(usable.utterances) == 3 and usable.problems == () and found.findings == ()
