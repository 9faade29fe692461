"""Melody, timbre and pace of one sound beside the recording of the same text."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import librosa
import numpy as np
from scipy.fft import dct

from hparams import AudioParams
from text.symbols import needs_sound

CEPSTRA = slice(1, 25)  # of the mel cepstrum, without its first, which is loudness
DB_OF_LOG = 20 / math.log(10)  # a natural logarithm of a magnitude in decibels
LOWEST_HZ, HIGHEST_HZ = 60.0, 500.0  # of the pitch of speech
QUIET_DB = 40.0  # under the loudest frame: the silence around a sentence


@dataclass(frozen=True)
class Pitch:
    """hz [T_mel]: NaN where there is no voice. It sees frames of the mel's hop."""

    hz: np.ndarray

    @classmethod
    def of(cls, wav: np.ndarray, audio: AudioParams) -> "Pitch":
        """By pYIN (Mauch and Dixon 2014) of wav [L]."""
        hz, _, _ = librosa.pyin(
            wav, fmin=LOWEST_HZ, fmax=HIGHEST_HZ, sr=audio.sampling_rate, hop_length=audio.hop_length,
            frame_length=2 * audio.filter_length,  # half of it must hold two periods of a low voice
        )  # fmt: skip
        return cls(hz)

    @property
    def spread(self) -> float | None:
        """Standard deviation in semitones: a monotonous voice has little. None without voiced frames."""
        voiced = self.hz[np.isfinite(self.hz)]
        return float(np.std(12 * np.log2(voiced))) if len(voiced) else None


@dataclass(frozen=True)
class Comparison:
    """One sound beside the recording, frame by frame along the cheapest warping of time."""

    cepstral_distortion_db: float
    pitch_error_cents: float | None  # root mean square where both have a voice; None where none do
    voicing_error: float  # share of the frames where only one has a voice


def mel_cepstra(mel: np.ndarray) -> np.ndarray:
    """Cosine transform of log-mels [n_mels, T] -> [24, T]; a difference's length is decibels, see `compare`."""
    return dct(mel, axis=0, norm="ortho")[CEPSTRA] * (DB_OF_LOG / math.sqrt(mel.shape[0]))


def compare(mel: np.ndarray, pitch: Pitch, *, recorded_mel: np.ndarray, recorded_pitch: Pitch) -> Comparison:
    """Mels [n_mels, T] are logarithms of magnitudes.

    Mel cepstral distortion (Kubichek 1993) is 10 / ln 10 sqrt(2 sum (c - c')^2) for cepstra of log = sum c_d cos(d w);
    in cepstra of an orthonormal transform that is the root mean square over the bands, in decibels.
    """
    ours, theirs = mel_cepstra(mel), mel_cepstra(recorded_mel)
    path = librosa.sequence.dtw(ours, theirs, metric="euclidean")[1][::-1]  # [K, 2] of (ours, theirs)
    steps = path[:, 0], path[:, 1]
    distances = np.linalg.norm(ours[:, steps[0]] - theirs[:, steps[1]], axis=0)
    return Comparison(float(distances.mean()), *_pitch_errors(_at(pitch, steps[0]), _at(recorded_pitch, steps[1])))


def _at(pitch: Pitch, frames: np.ndarray) -> np.ndarray:
    return pitch.hz[np.minimum(frames, len(pitch.hz) - 1)]  # a sound may be a frame shorter than its mel


def _pitch_errors(ours: np.ndarray, theirs: np.ndarray) -> tuple[float | None, float]:
    is_ours, is_theirs = np.isfinite(ours), np.isfinite(theirs)
    both = is_ours & is_theirs
    voicing = float((is_ours != is_theirs).mean())
    if not both.any():
        return None, voicing
    cents = 1200 * np.log2(ours[both] / theirs[both])
    return float(np.sqrt(np.square(cents).mean())), voicing


def speaking_rate(symbols: Sequence[str], mel: np.ndarray, *, frame_s: float) -> float | None:
    """Sounded symbols a second between the first and the last loud frame of mel [n_mels, T]; None for silence."""
    loudness = DB_OF_LOG * mel.mean(axis=0)  # [T]
    loud = np.flatnonzero(loudness > loudness.max(initial=-np.inf) - QUIET_DB)
    if len(loud) < 2:
        return None
    return sum(map(needs_sound, symbols)) / ((loud[-1] - loud[0] + 1) * frame_s)
