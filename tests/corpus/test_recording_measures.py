"""Claims about numbers of one recording."""

from pathlib import Path

import numpy as np
import pytest

from corpus.recording_files import read_recording
from corpus.recording_measures import measure, measure_recording
from support.speech_like import RATE, encoded, voice_like


def test_the_same_take_in_another_format_has_the_same_content(tmp_path: Path) -> None:
    contents = set()
    for name, kind in (("a.wav", "WAV"), ("a.flac", "FLAC")):
        pcm = np.rint(voice_like() * 20000).astype(np.int16)
        (tmp_path / name).write_bytes(encoded(pcm, format=kind))
        contents.add(measure_recording(read_recording(tmp_path / name)).content)
    assert len(contents) == 1


def test_edges_and_pauses_are_measured_to_a_frame() -> None:
    silence = np.zeros(RATE // 2)
    m = measure(np.concatenate([silence, voice_like(1.0), silence, voice_like(1.0), silence])[None], RATE)
    assert m.leading_s == pytest.approx(0.5, abs=0.02)
    assert m.longest_pause_s == pytest.approx(0.63, abs=0.15)  # the pause and what is quiet of a syllable beside it
    assert m.duration_s == pytest.approx(3.5)


@pytest.mark.parametrize("colour", ["white", "pink", "brown"])
@pytest.mark.parametrize("rate", [8000, 22050, 48000])
def test_noise_of_any_colour_has_no_harmonics(colour: str, rate: int) -> None:
    spectrum = np.fft.rfft(np.random.default_rng(0).standard_normal(2 * rate))
    power = {"white": 0.0, "pink": 0.5, "brown": 1.0}[colour]
    noise = np.fft.irfft(spectrum / np.maximum(1, np.arange(len(spectrum))) ** power)
    assert measure(0.1 * (noise / noise.std())[None], rate).peakiness < 3.8
    assert measure(voice_like(2.0, rate=rate)[None], rate).peakiness > 5
