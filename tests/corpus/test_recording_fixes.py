"""Claims about mended recordings: level, edges, scale, channel, rate."""

import numpy as np
import pytest

from corpus.recording_fixes import fixed_recording, levelled, trimmed
from support.speech_like import RATE, voice_like


@pytest.mark.parametrize("gain", [0.05, 1.0, 5.0])
def test_pieces_come_out_at_one_level_without_clipping(gain: float) -> None:
    out = levelled((gain * voice_like(2.0)).astype(np.float32), RATE)
    assert np.abs(out).max() <= 0.971
    assert np.percentile(np.abs(out), 99) == pytest.approx(
        np.percentile(np.abs(levelled(voice_like(2.0), RATE)), 99), rel=0.05
    )


def test_silence_stays_silence_when_levelled() -> None:
    assert not levelled(np.zeros(RATE, np.float32), RATE).any()


def test_trimming_keeps_a_margin_and_all_of_the_sound() -> None:
    voice = voice_like(1.0)
    silence = 1e-5 * np.random.default_rng(0).standard_normal(RATE)
    kept, cut_s = trimmed(np.concatenate([silence, voice, silence]).astype(np.float32), RATE)
    assert len(kept) / RATE == pytest.approx(1.25, abs=0.1)
    assert cut_s == pytest.approx(1.75, abs=0.1)


def test_a_recording_is_mended_in_scale_channel_offset_and_rate() -> None:
    voice = voice_like(1.0, rate=16000)
    fixed = fixed_recording(np.stack([(voice + 0.05) * 32768, 0 * voice]), 16000, target_rate=RATE)
    assert fixed.sampling_rate == RATE and fixed.wav.ndim == 1
    assert len(fixed.wav) == pytest.approx(RATE, rel=0.05)
    assert abs(fixed.wav.mean()) < 0.005 and np.abs(fixed.wav).max() <= 1.0
    said_of = " ".join(fixed.changes)
    assert all(word in said_of for word in ("channel 1 of 2", "divided by 32768", "offset", "resampled from 16000 Hz"))
