"""A recording as training wants it: one channel, whole scale, no offset, quiet edges cut, one level, one rate."""

from dataclasses import dataclass

import numpy as np
import soxr

from corpus.recording_checks import CANCELLED_DB, DEAD_DB, INTEGER_SCALE, OFFSET, OPPOSED_DB, UNLIKE_DB
from corpus.recording_measures import FRAME_S, RecordingMeasures, frame_levels_db, measure, sound_span

SPEECH_DB = -23.0  # of full scale, the level of what is loud
PEAK = 0.97
MOST_GAIN_DB = 30.0
MARGIN_BEFORE_S, MARGIN_AFTER_S = 0.1, 0.15  # of quiet that stays
LARGEST = 2.0**32  # beyond any integer scale; such a recording stays refused, and squares stay finite
LEVEL_TOLERANCE_DB = 0.5


@dataclass(frozen=True)
class FixedRecording:
    """wav: float32 [L], mono, at sampling_rate. changes: in words, none where it was fine."""

    wav: np.ndarray
    sampling_rate: int
    changes: tuple[str, ...]


def fixed_recording(samples: np.ndarray, sampling_rate: int, *, target_rate: int) -> FixedRecording:
    """samples [channels, n], finite -> what training wants."""
    measures = measure(samples, sampling_rate)
    samples = np.clip(samples, -LARGEST, LARGEST)
    wav, changes = _one_channel(samples, measures)
    if measures.peak > INTEGER_SCALE:
        bits = 15 if measures.peak <= 2**15 else 23 if measures.peak <= 2**23 else 31
        wav = wav / np.float32(2**bits)
        changes.append(f"divided by {2**bits}")
    if abs(float(wav.mean())) > OFFSET:
        wav = wav - wav.mean()
        changes.append("offset taken off")
    wav, cut_s = trimmed(wav, sampling_rate)
    if cut_s > FRAME_S:
        changes.append(f"{cut_s:.2f} s of quiet edges cut")
    level = levelled(wav, sampling_rate)
    gain_db = 20 * np.log10(
        max(1e-9, float(np.abs(level).max(initial=0)) / max(1e-9, float(np.abs(wav).max(initial=0))))
    )
    if abs(gain_db) > LEVEL_TOLERANCE_DB:
        changes.append(f"level {gain_db:+.1f} dB")
    if sampling_rate != target_rate:
        level = soxr.resample(level, sampling_rate, target_rate, quality="VHQ")
        changes.append(f"resampled from {sampling_rate} Hz")
    return FixedRecording(np.ascontiguousarray(level, np.float32), target_rate, tuple(changes))


def _one_channel(samples: np.ndarray, measures: RecordingMeasures) -> tuple[np.ndarray, list[str]]:
    if len(samples) == 1:
        return samples[0].astype(np.float32), []
    loudest = int(np.argmax(measures.channel_db))
    over_quietest = measures.channel_db[loudest] - min(measures.channel_db)
    over_mix = measures.channel_db[loudest] - measures.mixed_db
    is_lost = over_mix > min(OPPOSED_DB, CANCELLED_DB) or measures.mixing_loss_db > UNLIKE_DB
    if over_quietest > DEAD_DB or is_lost:
        return samples[loudest].astype(np.float32), [f"channel {loudest + 1} of {len(samples)} kept"]
    return samples.mean(axis=0).astype(np.float32), [f"{len(samples)} channels mixed"]


def trimmed(wav: np.ndarray, sampling_rate: int) -> tuple[np.ndarray, float]:
    """[L] without quiet edges beyond the margins, and how many seconds went."""
    levels = frame_levels_db(wav - wav.mean(), sampling_rate)
    first, end = sound_span(levels)
    before = max(0, round((first * FRAME_S - MARGIN_BEFORE_S) * sampling_rate))
    after = len(wav) if end >= len(levels) else round((end * FRAME_S + MARGIN_AFTER_S) * sampling_rate)
    kept = wav[before:after]
    return kept, (len(wav) - len(kept)) / sampling_rate


def levelled(wav: np.ndarray, sampling_rate: int) -> np.ndarray:
    """[L] with its loud parts at one level, as far as its peak allows."""
    levels = frame_levels_db(wav, sampling_rate)
    loud_db = float(np.percentile(levels, 95)) if len(levels) else SPEECH_DB
    gain = 10 ** (min(MOST_GAIN_DB, SPEECH_DB - loud_db) / 20)
    peak = float(np.abs(wav).max(initial=0.0))
    return wav * np.float32(min(gain, PEAK / peak) if peak > 0 else 1.0)
