"""Claims about what training gets of an examination: the usable lines, and the same problems that the doctor names."""

from pathlib import Path

import numpy as np
import soundfile

from common.errors import DataError
from corpus.demo.builder import ensure_demo_corpus
from corpus.demo.sentences import DemoSentences
from corpus.doctor import Examination, examine
from corpus.examined_lists import usable_filelists, warnings_of
from corpus.filelists import data_error, read_filelist
from corpus.measuring import MeasureIndex
from support.corpora import write_corpus
from support.hostile_corpus import RATE, good_lines, voice_like


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
    assert [(warning.line, warning.kind) for warning in warnings_of(found)] == [(4, "clipped")]


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
