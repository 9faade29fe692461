"""Claims about the examination of whole lists."""

import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from common.errors import DataError
from corpus.doctor import examine
from corpus.list_checks import Places, check_list
from corpus.measuring import MeasureIndex, measure_files
from corpus.recording_checks import check_recording
from corpus.recording_measures import RecordingMeasures
from corpus.speech_rate import Spoken, check_speech_rate
from support.paths import SHARED_DATA
from support.speech_like import RATE, voice_like

KATHLEEN = SHARED_DATA / "kathleen"


@pytest.mark.skipif(not KATHLEEN.is_dir(), reason="the real corpus is not beside the checkout")
def test_a_real_corpus_gives_no_error_and_few_warnings(tmp_path: Path) -> None:
    path = KATHLEEN / "filelists" / "val.txt"
    checked = check_list(path, Places.of(path, dataset_path=KATHLEEN))
    assert checked.findings == () and len(checked.lines) == 50
    began = time.process_time()
    index = MeasureIndex(tmp_path / "index.json")
    measured = measure_files([line.audio_path for line in checked.lines], hash_of=str, index=index)
    assert time.process_time() - began < 5
    assert [check_recording(m) for m in measured if isinstance(m, RecordingMeasures)] == [[]] * 50
    spoken = [Spoken(line.text, m.sound_s) for line, m in zip(checked.lines, measured, strict=True)
              if isinstance(m, RecordingMeasures)]  # fmt: skip
    assert sum(finding is not None for finding in check_speech_rate(spoken)) <= 1


def test_two_silent_recordings_are_not_called_the_same_sound(tmp_path: Path) -> None:
    for name in ("a", "b"):
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(RATE), RATE)
    (tmp_path / "train.csv").write_text("a.wav|One thing.\nb.wav|Another thing.\n")
    found = examine(
        [tmp_path / "train.csv"], dataset_path=tmp_path, hash_of=str, index=MeasureIndex(tmp_path / "index.json")
    )
    assert [finding.kind for finding in found.findings] == ["silent", "silent"]


def test_a_list_for_both_sets_is_examined_once(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", voice_like(1.0), RATE)
    (tmp_path / "train.csv").write_text("a.wav|One thing is here.\n")
    path = tmp_path / "train.csv"
    found = examine([path, path], dataset_path=tmp_path, hash_of=str, index=MeasureIndex(tmp_path / "index.json"))
    assert (len(found.lists), len(found.lines), found.findings) == (1, 1, ())


def test_a_folder_that_is_none_is_named_before_any_line(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("a.wav|One thing is here.\n")
    where = {"dataset_path": tmp_path / "train.csv", "data_roots": [tmp_path / "nowhere"]}
    with pytest.raises(DataError, match=r"nowhere is no folder; dataset_path .* is a file, and no folder; correct"):
        examine([tmp_path / "train.csv"], **where, hash_of=str, index=MeasureIndex(tmp_path / "index.json"))
