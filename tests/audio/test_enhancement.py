"""Enhancement of synthesised sound: what it removes, what it leaves, and where it acts."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from audio import enhancement
from audio.enhancement import TARGET_LUFS, at_loudness, enhance, integrated_loudness, lower_noise
from audio.recordings import read_audio
from corpus.mel_cache import read_mel
from data_utils import load_corpus
from hparams import HParams, create_hparams
from speech.voice import Speaker
from support.voices import save_voice

Tiny = Callable[..., HParams]
RATE = 22050


def tone(hz: float, seconds: float = 2.0, level: float = 0.1) -> np.ndarray:
    return level * np.sin(2 * np.pi * hz * np.arange(int(seconds * RATE)) / RATE)


def syllables(level: float = 0.1) -> np.ndarray:
    """Two seconds of a tone that comes and goes three times a second."""
    time_s = np.arange(2 * RATE) / RATE
    return tone(440, level=level) * np.clip(np.sin(2 * np.pi * 3 * time_s), 0, 1)


def noise(level: float = 0.003, seconds: float = 2.0) -> np.ndarray:
    return np.random.default_rng(0).normal(0, level, int(seconds * RATE))


def power_db(wav: np.ndarray) -> float:
    return 10 * np.log10(np.mean(np.square(wav)))


@pytest.mark.parametrize("rate", [16000, 22050, 48000])
def test_a_full_scale_sine_of_997_hz_has_minus_3_lufs(rate: int) -> None:
    wav = np.sin(2 * np.pi * 997 * np.arange(3 * rate) / rate)
    assert integrated_loudness(wav, rate) == pytest.approx(-3.01, abs=0.05)  # the standard's own calibration


def test_the_weighting_at_48_khz_is_the_standards() -> None:
    expected = [
        [1.53512485958697, -2.69169618940638, 1.19839281085285, 1.0, -1.69065929318241, 0.73248077421585],
        [1.0, -2.0, 1.0, 1.0, -1.99004745483398, 0.99007225036621],
    ]  # ITU-R BS.1770-4, tables 1 and 2
    np.testing.assert_allclose(enhancement._k_weighting(48000), expected, atol=1e-6)


def test_pauses_do_not_count_towards_loudness() -> None:
    speech = syllables()
    with_pause = np.concatenate([speech, np.zeros(3 * RATE), speech])
    assert integrated_loudness(with_pause, RATE) == pytest.approx(integrated_loudness(speech, RATE), abs=0.5)


@pytest.mark.parametrize("level", [0.003, 0.05, 0.4])
def test_speech_of_any_level_comes_out_at_the_target(level: float) -> None:
    assert integrated_loudness(enhance(syllables(level), RATE), RATE) == pytest.approx(TARGET_LUFS, abs=0.1)


def test_a_peak_is_never_taken_over_one_decibel_below_full_scale() -> None:
    clicks = np.zeros(2 * RATE)
    clicks[:: RATE // 4] = 0.2
    loud = at_loudness(clicks, RATE)
    assert np.abs(loud).max() == pytest.approx(10 ** (-1 / 20)) and integrated_loudness(loud, RATE) < TARGET_LUFS


def test_an_offset_is_removed() -> None:
    assert abs(enhance(syllables() + 0.05, RATE).mean()) < 1e-3


def test_quiet_ends_are_trimmed_to_a_tenth_of_a_second() -> None:
    padded = np.concatenate([np.zeros(RATE), syllables(), np.zeros(RATE)])
    assert 1.5 * RATE < len(enhance(padded, RATE)) < 2.2 * RATE


def test_steady_noise_falls_and_the_voice_stays() -> None:
    clean, hiss = syllables(), noise()
    gated = lower_noise(clean + hiss, RATE)
    assert len(gated) == len(clean)
    voiced = np.abs(clean) > 0.05
    assert power_db(gated[voiced]) == pytest.approx(power_db((clean + hiss)[voiced]), abs=0.5)
    pause = slice(int(1.2 / 6 * RATE), int(1.8 / 6 * RATE))  # the tone's negative half-waves are silent
    fall = power_db(hiss[pause]) - power_db(gated[pause])
    assert 4 < fall < 12.5


@pytest.mark.parametrize("wav", [np.zeros(RATE), np.full(RATE, 0.2), np.array([0.1, np.nan]), np.zeros(0)])
def test_what_holds_no_sound_stays_as_it_is(wav: np.ndarray) -> None:
    np.testing.assert_array_equal(enhance(wav, RATE), wav)


@pytest.mark.parametrize("n", [1, 50, 3000])
def test_short_sounds_survive(n: int) -> None:
    wav = noise(0.1)[:n] if n > 1 else np.array([0.3, -0.3])
    assert np.isfinite(enhance(wav, RATE)).all()


def test_a_voice_is_enhanced_where_asked_and_only_its_sound(tiny: Tiny, tmp_path: Path) -> None:
    hp = tiny()
    speaker = Speaker.load(save_voice(hp, load_corpus(hp), tmp_path / "run"))
    plain, clean = (speaker.speak(["hi there"], enhanced=enhanced)[0] for enhanced in (False, True))
    assert np.array_equal(plain.sample.mel, clean.sample.mel)
    np.testing.assert_array_equal(enhance(plain.wav, hp.sampling_rate), clean.wav)
    assert len(plain.wav) != len(clean.wav) or not np.array_equal(plain.wav, clean.wav)


def test_training_mels_are_never_enhanced(tiny: Tiny) -> None:
    on, off = (load_corpus(tiny(f"use_audio_quality_enhancement={value}")) for value in (True, False))
    for a, b in zip(on.train.features, off.train.features, strict=True):
        assert a.mel_path == b.mel_path
        np.testing.assert_array_equal(read_mel(a.mel_path), read_mel(b.mel_path))
    assert create_hparams().use_audio_quality_enhancement
    first = on.train.features[0].utterance.audio_path
    np.testing.assert_array_equal(
        read_audio(first, tiny()), read_audio(first, tiny("use_audio_quality_enhancement=False"))
    )
