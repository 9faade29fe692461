"""Detail given back to a mel that prediction smoothed: how much, to which mels, and where it is heard."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from audio import mel_sharpening
from audio.mel import mel_spectrogram
from audio.mel_sharpening import BLUR, MOST, NATURAL_DETAIL, detail, sharpened, with_more_detail
from data_utils import load_corpus
from evaluation.sounds import Clip, with_sound
from hparams import HParams, create_hparams
from speech.voice import Manner, Speaker
from support.speech_like import RATE, voice_like
from support.voices import save_voice

Tiny = Callable[..., HParams]


@pytest.fixture(scope="module")
def recorded() -> np.ndarray:
    """[80, T]"""
    wav = voice_like(2.0, seed=3).astype(np.float32) + np.random.default_rng(0).normal(0, 1e-3, 2 * RATE)
    hp = create_hparams(f"sampling_rate={RATE}")
    return mel_spectrogram(torch.from_numpy(wav.astype(np.float32)), hp).numpy()


@pytest.fixture(scope="module")
def predicted(recorded: np.ndarray) -> np.ndarray:
    """As smooth as the voices of an hour."""
    return gaussian_filter(recorded, 1.2).astype(np.float32)


def test_a_mel_as_detailed_as_recordings_stays_as_it_is(recorded: np.ndarray) -> None:
    assert detail(recorded) > NATURAL_DETAIL
    np.testing.assert_array_equal(sharpened(recorded), recorded)


def test_a_smooth_mel_comes_nearer_to_the_recording(recorded: np.ndarray, predicted: np.ndarray) -> None:
    mended = sharpened(predicted)
    assert detail(predicted) < detail(mended) < detail(recorded)
    assert np.abs(mended - recorded).mean() < 0.95 * np.abs(predicted - recorded).mean()
    assert mended.mean() == pytest.approx(predicted.mean(), abs=0.02), "neither louder nor quieter"


def test_the_smoother_a_mel_the_more_it_is_given_up_to_a_limit(recorded: np.ndarray) -> None:
    def given(blur: float) -> float:
        """As a share of what the blur takes away."""
        mel = gaussian_filter(recorded, blur)
        return float(np.median((sharpened(mel) - mel) / (mel - gaussian_filter(mel, BLUR))))

    shares = [given(blur) for blur in (0.5, 1.0, 4.0)]
    assert shares == sorted(shares) and shares[-1] == pytest.approx(MOST, rel=1e-3)


def test_the_blur_is_a_gaussian_as_scipy_has_it(recorded: np.ndarray) -> None:
    taken = with_more_detail(recorded, share=1.0) - recorded
    np.testing.assert_allclose(recorded - taken, gaussian_filter(recorded, BLUR, mode="nearest"), atol=1e-4)


@pytest.mark.parametrize("n_frames", [0, 1, 2])
def test_few_frames_are_no_obstacle(n_frames: int) -> None:
    assert np.isfinite(sharpened(np.full((80, n_frames), -5.0, np.float32))).all()


def test_what_is_not_finite_is_left_to_those_who_refuse_it(predicted: np.ndarray) -> None:
    broken = predicted.copy()
    broken[3, 5] = np.nan
    np.testing.assert_array_equal(sharpened(broken), broken)


class Remembering:
    """A vocoder that keeps the mels it was given."""

    name, sampling_rate, hop_length = "remembering", 8000, 100

    def __init__(self) -> None:
        self.mels: list[np.ndarray] = []

    def __call__(self, mel: Tensor) -> Tensor:
        self.mels.append(mel.numpy().copy())
        return torch.zeros(self.hop_length * mel.shape[-1])


def test_it_is_heard_with_enhancement_only_and_the_picture_shows_the_networks_own(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mel_sharpening, "NATURAL_DETAIL", 5.0)  # so few bands lie far apart
    hp = tiny()
    save_voice(hp, load_corpus(hp), tmp_path / "voice")
    vocoder = Remembering()
    voice = replace(Speaker.load(tmp_path / "voice"), chosen_vocoder=vocoder)  # type: ignore[arg-type]
    for is_enhanced in (False, True):
        (part,) = voice.narrate(voice.parts_of("hello there"), manner=Manner(enhanced=is_enhanced))
        own = part.utterance.sample.mel  # type: ignore[union-attr]
        np.testing.assert_array_equal(vocoder.mels[-1], sharpened(own) if is_enhanced else own)
    assert detail(vocoder.mels[1]) > detail(vocoder.mels[0])


def test_an_evaluation_hears_it_where_asked(predicted: np.ndarray) -> None:
    vocoder, clip = Remembering(), Clip(None, np.zeros(0), predicted, RATE)  # type: ignore[arg-type]
    for is_enhanced in (False, True):
        with_sound(clip, vocoder, is_enhanced=is_enhanced)  # type: ignore[arg-type]
    np.testing.assert_array_equal(vocoder.mels[0], predicted)
    np.testing.assert_array_equal(vocoder.mels[1], sharpened(predicted))
