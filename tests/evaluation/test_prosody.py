"""Pitch, timbre and pace on sounds whose truth is known."""

import numpy as np
import pytest
import torch

from audio.mel import mel_spectrogram
from evaluation.prosody import Pitch, compare, speaking_rate
from hparams import AudioParams

AUDIO = AudioParams()
RATE = AUDIO.sampling_rate


def voice(hz: float, seconds: float = 1.0) -> np.ndarray:
    """A buzz of 20 harmonics, with a fifth of a second of near silence around."""
    time_s = np.arange(int(seconds * RATE)) / RATE
    buzz = sum(np.sin(2 * np.pi * hz * k * time_s) / k for k in range(1, 21)) * 0.2
    quiet = np.zeros(RATE // 5)
    wav = np.concatenate([quiet, buzz, quiet])
    return (wav + 1e-4 * np.random.default_rng(0).normal(size=len(wav))).astype(np.float32)


def mel_of(wav: np.ndarray) -> np.ndarray:
    return mel_spectrogram(torch.from_numpy(wav), AUDIO).numpy()


@pytest.fixture(scope="module")
def low() -> tuple[np.ndarray, Pitch]:
    wav = voice(120.0)
    return mel_of(wav), Pitch.of(wav, AUDIO)


def test_a_semitone_is_a_hundred_cents(low: tuple[np.ndarray, Pitch]) -> None:
    wav = voice(120.0 * 2 ** (1 / 12))
    found = compare(mel_of(wav), Pitch.of(wav, AUDIO), recorded_mel=low[0], recorded_pitch=low[1])
    assert found.pitch_error_cents == pytest.approx(100, abs=15)  # pYIN tells a tenth of a semitone
    assert found.voicing_error < 0.1


def test_the_same_sound_said_slower_differs_in_nothing(low: tuple[np.ndarray, Pitch]) -> None:
    slower = np.repeat(low[0], 2, axis=1)
    found = compare(slower, Pitch(np.repeat(low[1].hz, 2)), recorded_mel=low[0], recorded_pitch=low[1])
    assert found.cepstral_distortion_db == pytest.approx(0, abs=1e-9)
    assert found.pitch_error_cents == 0 and found.voicing_error == 0


def test_cepstral_distortion_is_in_decibels_and_deaf_to_loudness(low: tuple[np.ndarray, Pitch]) -> None:
    mel, pitch = low
    n_mels = mel.shape[0]
    louder = compare(mel + 1.0, pitch, recorded_mel=mel, recorded_pitch=pitch)
    assert louder.cepstral_distortion_db == pytest.approx(0, abs=1e-4)
    # a ripple of 1 dB root mean square that is one of the 24 cosines
    ripple = np.sqrt(2) * np.cos(np.pi * 5 * (np.arange(n_mels) + 0.5) / n_mels) * np.log(10) / 20
    rippled = compare(mel + ripple[:, None], pitch, recorded_mel=mel, recorded_pitch=pitch)
    assert rippled.cepstral_distortion_db == pytest.approx(1.0, abs=0.05)  # the warping path gains a little


def test_a_steady_tone_has_no_spread_and_silence_no_pitch(low: tuple[np.ndarray, Pitch]) -> None:
    assert low[1].spread is not None and low[1].spread < 0.3
    assert Pitch(np.full(10, np.nan)).spread is None
    nothing = compare(low[0], Pitch(np.full(len(low[1].hz), np.nan)), recorded_mel=low[0], recorded_pitch=low[1])
    assert nothing.pitch_error_cents is None and nothing.voicing_error > 0.3


def test_the_pace_does_not_count_silence_around_the_speech(low: tuple[np.ndarray, Pitch]) -> None:
    frame_s = AUDIO.hop_length / RATE
    assert speaking_rate(list("a, b cd."), low[0], frame_s=frame_s) == pytest.approx(4 / 1.0, rel=0.06)
    assert speaking_rate(["a"], np.zeros((80, 0)), frame_s=frame_s) is None
