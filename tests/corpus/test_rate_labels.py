"""Claims about recordings whose header states another rate than they were made at."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from corpus.doctor import examine
from corpus.measuring import MeasureIndex
from corpus.rate_labels import Pitched, check_rate_labels, check_whole
from support.speech_like import RATE, SENTENCES, voice_like


def read_lines(n: int, *, speed: float = 1.0, seed: int = 0, rate: int = RATE, pitch: float = 150.0) -> list[Pitched]:
    """As a person reads: pitch and speed vary from line to line; at another speed when the header is wrong."""
    rng = np.random.default_rng(seed)
    varied = np.exp(rng.normal(0, [[0.09], [0.1]], (2, n)))  # of time, and of pitch
    return [
        Pitched("a" * 60, 60 / 14 * time / speed, time / speed, pitch * height * speed, round(rate * speed))
        for time, height in varied.T
    ]


@pytest.mark.parametrize("speed", [2.0, 0.5, 48000 / 22050])
@pytest.mark.parametrize("n_wrong", [1, 3, 10, 20])
def test_clips_at_twice_or_half_their_speed_are_found_and_no_others(speed: float, n_wrong: int) -> None:
    lines = [*read_lines(n_wrong, speed=speed, seed=1), *read_lines(40 - n_wrong, seed=2)]
    found = check_rate_labels(lines)
    assert all(finding is not None and finding.kind == "sampling rate" for finding in found[:n_wrong])
    assert found[n_wrong:] == [None] * (40 - n_wrong)
    assert found[0] is not None and "may have been recorded at 22050 Hz" in found[0].message


def test_a_fast_reader_and_a_higher_voice_are_no_wrong_header() -> None:
    high = read_lines(5, pitch=280.0, seed=3)
    fast = [Pitched(i.text, i.sound_s / 2, i.time_ratio / 2, i.pitch_hz, i.sampling_rate) for i in read_lines(5)]
    assert check_rate_labels([*read_lines(40, seed=4), *high, *fast]) == [None] * 50


def test_a_whole_corpus_too_fast_or_slow_for_a_person_is_one_finding() -> None:
    for pitch, speed, words in ((150.0, 2.0, "fast and high"), (220.0, 0.5, "slow and low"), (100.0, 0.5, "slow")):
        finding = check_whole(read_lines(20, pitch=pitch, speed=speed))
        assert finding is not None and words in finding.detail
    for pitch in (90.0, 150.0, 260.0):
        assert check_whole(read_lines(20, pitch=pitch)) is None
    chinese = [Pitched("\u4eca\u5929\u5929\u6c14", 1.0, 1.0, 110.0, RATE)] * 20
    assert check_whole(chinese) is None


def test_a_wav_with_a_wrong_header_is_named_before_training(tmp_path: Path) -> None:
    for i, text in enumerate(SENTENCES):
        soundfile.write(tmp_path / f"u{i}.wav", voice_like(len(text) / 14, seed=i), RATE * 2 if i == 3 else RATE)
    path = tmp_path / "train.csv"
    path.write_text("".join(f"u{i}.wav|{text}\n" for i, text in enumerate(SENTENCES)))
    index = MeasureIndex(tmp_path / "index.json")
    found = examine([path], dataset_path=tmp_path, hash_of=str, index=index).findings
    assert [(finding.kind, finding.line, finding.severity) for finding in found] == [("sampling rate", 4, "warning")]
    assert "its header says 44100 Hz, and it may have been recorded at 22050 Hz" in found[0].message
