"""Claims about measures of many files: made once, kept by content."""

from pathlib import Path

import pytest

from corpus.measuring import MeasureIndex, measure_file, measure_files
from corpus.recording_measures import RecordingMeasures
from support.speech_like import encoded, voice_like


def test_measures_are_kept_by_content_and_made_once(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(encoded(voice_like()))
    index = MeasureIndex(tmp_path / "recordings.json")
    (made,) = measure_files([path], hash_of=lambda path: "key", index=index)
    path.write_bytes(b"")  # a look at the file would fail now
    known = measure_file(path, hash_of=lambda path: "key", index=MeasureIndex(tmp_path / "recordings.json"))
    assert isinstance(known, RecordingMeasures) and known == made


def test_a_damaged_index_is_said_and_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "recordings.json").write_text("{broken")
    assert MeasureIndex(tmp_path / "recordings.json").get("key") is None
    assert "what it held is computed again" in caplog.text
