"""Claims about single recordings: each kind of damage is named, and good ones of any format are not."""

import math
from pathlib import Path

import pytest

from corpus.findings import Finding
from corpus.measuring import MeasureIndex, measure_file
from corpus.recording_checks import Wanted, check_recording
from corpus.recording_measures import RecordingMeasures, measure
from support import hostile_recordings
from support.speech_like import voice_like

RECORDINGS = hostile_recordings.bad_recordings()


@pytest.mark.parametrize("case", RECORDINGS, ids=lambda case: case.name)
def test_a_recording_is_judged_as_it_deserves(case: hostile_recordings.BadRecording, tmp_path: Path) -> None:
    path = tmp_path / f"u{case.suffix}"
    path.write_bytes(case.content())
    measured = measure_file(path, hash_of=lambda path: "0", index=MeasureIndex(tmp_path / "index.json"))
    findings = [measured] if isinstance(measured, Finding) else check_recording(measured)
    kinds = {finding.kind for finding in findings}
    said = [finding.message for finding in findings]
    for wanted in hostile_recordings.kinds_of(case.kinds):
        assert kinds & wanted, said
    assert kinds <= set().union(*hostile_recordings.kinds_of(case.kinds)), said
    if isinstance(measured, RecordingMeasures):
        numbers = [value for value in measured.to_dict().values() if isinstance(value, float)]
        assert all(map(math.isfinite, [*numbers, *measured.channel_db]))


def test_the_band_needed_follows_the_mels() -> None:
    m = measure(voice_like(rate=8000)[None], 8000)
    assert [f.kind for f in check_recording(m)] == ["narrow band"]
    assert check_recording(m, Wanted(sampling_rate=8000, mel_fmax=4000.0)) == []
