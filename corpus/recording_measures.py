"""What can be measured of one recording by itself: levels, edges, noise, clipping, channels, bandwidth, voice.

Measuring takes milliseconds a second of sound and depends on nothing but the samples, so it is done once and kept;
`recording_checks` judges the numbers, which costs nothing.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self

import numpy as np
import scipy.fft

from corpus.recording_files import Recording

MEASURES_VERSION = 4  # raise when a number of the same samples changes

FRAME_S = 0.010  # of levels
LEVEL_FLOOR_DB = -120.0  # what digital silence is called
SPEECH_BELOW_LOUD_DB = 35.0  # a frame counts as sound down to this much under the loud ones
SPEECH_OVER_NOISE_DB = 6.0  # and never so near the noise
LEAST_SOUND_FRAMES = 3  # in a row; a click is shorter
SPECTRUM_S = 0.040  # of spectra; rounded up to a power of two
LARGEST = 1e6  # whatever is beyond counts as that much: squares stay finite
TINY = 1e-12  # keeps quotients of magnitudes finite
MAX_SPECTRA = 400  # of one recording, evenly spread: enough to know a minute by
HIDDEN_SHARE = 10**-5.5  # of the energy; what lies above such a frequency is rounding, not sound
VOICE_BAND_HZ = (60.0, 3500.0)
WHITENING_HZ = 700.0  # wider than the distance of two harmonics
PITCH_HZ = (40.0, 600.0)  # wider than voices: one played at half or double speed is to be seen
VOICED = 0.6  # autocorrelation of a frame with a pitch
FIRST_PEAK = 0.9  # of the highest: its multiples correlate as well as the period itself
LEAST_VOICED = 5  # frames; fewer say nothing
PEAKINESS_PERCENTILE = 90  # of frames: in every word some frames have a pitch
LEAST_CLIPPED = 0.01  # of full scale; the extremes of a channel without sound mean nothing
CLIPPED_RUN = 3  # samples in a row that lie at the same extreme
# Zeros for so long, between samples of so much of the sound's root mean square: espeak-ng is silent in its stops, and
# begins them at quiet samples.
DROPOUT_S, DROPOUT_LEVEL = 0.002, 0.1
WRAPPED = 1.6  # of full scale, from one sample to the next: from one end of the scale to the other
ALMOST_EXTREME = 0.5 / 32768  # of full scale; how far two samples of one flat top may differ


@dataclass(frozen=True)
class RecordingMeasures:
    """Numbers of one recording. Levels in dB of full scale, times in seconds.

    peak: largest sample of any channel. mean: of the mixed signal (a constant offset); changes_db: level of the
    loudest channel without its mean. loud_db, quiet_db: 95th and 5th
    percentile of 10 ms frames, digital silence left out. leading_s, trailing_s: before the first and after the last
    sound. longest_pause_s: between them. sound_s: frames that hold sound. channel_db: level of each channel; mixed_db:
    of their mean. clipped: share of samples that lie on a flat top; wrapped: how often the signal jumps from one end of
    the scale to the other, as where sums overflow. dropouts: how often sound breaks off into zeros. bandwidth_hz:
    nothing but rounding lies above it. peakiness: how far harmonics rise over the spectrum around them; noise of any
    colour, steady or not, measures 2.7 to 3.6, voices 4.2 to 13, tones 13 to 21. pitch_hz: median of frames with a
    pitch, 0 where there are few. content: names the samples, whatever the file format. encoding, cut_off: as in
    Recording.
    """

    sampling_rate: int
    duration_s: float
    not_finite: int
    peak: float
    mean: float
    changes_db: float
    mixed_db: float
    channel_db: tuple[float, ...]
    loud_db: float
    quiet_db: float
    sound_s: float
    leading_s: float
    trailing_s: float
    longest_pause_s: float
    clipped: float
    wrapped: int
    dropouts: int
    bandwidth_hz: float
    peakiness: float
    pitch_hz: float
    content: str
    encoding: str = ""
    cut_off: str | None = None

    @property
    def dynamics_db(self) -> float:
        """How far loud frames rise over quiet ones: about the signal-to-noise ratio where there are pauses."""
        return self.loud_db - self.quiet_db

    @property
    def mixing_loss_db(self) -> float:
        """What mixing the channels loses: 0 where they are alike, 3 where two have nothing in common."""
        together = sum(10 ** (level / 20) for level in self.channel_db) / max(len(self.channel_db), 1)
        return 20 * math.log10(max(together, 1e-6)) - self.mixed_db

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        return asdict(self) | {"version": MEASURES_VERSION}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self | None:
        """The inverse of to_dict; None for what another version wrote."""
        names = {field.name for field in fields(cls)}
        if values.get("version") != MEASURES_VERSION or not names <= set(values):
            return None
        return cls(**{name: values[name] for name in names} | {"channel_db": tuple(values["channel_db"])})


def measure_recording(recording: Recording) -> RecordingMeasures:
    """Numbers of a file that was read."""
    numbers = measure(recording.samples, recording.sampling_rate)
    return replace(numbers, encoding=recording.encoding, cut_off=recording.cut_off)


def _finite(samples: np.ndarray) -> tuple[np.ndarray, int]:
    """With 0 in the place of what is no number, and how many there were."""
    finite = np.isfinite(samples)
    n = samples.size - int(np.count_nonzero(finite))
    return (np.where(finite, samples, 0.0) if n else samples), n


def measure(samples: np.ndarray, sampling_rate: int) -> RecordingMeasures:
    """Numbers of samples [channels, n], floats with full scale 1, at sampling_rate Hz.

    Samples that are not finite are counted and taken as 0. An empty recording measures as silence.
    """
    assert samples.ndim == 2, f"expected [channels, n], got shape {samples.shape}"
    samples, not_finite = _finite(samples)
    peak = float(np.abs(samples).max(initial=0.0))
    samples = np.clip(samples, -LARGEST, LARGEST).astype(np.float32)
    mixed = samples.mean(axis=0)  # [n]
    mean = float(mixed.mean(dtype=np.float64)) if mixed.size else 0.0
    levels = frame_levels_db(mixed - np.float32(mean), sampling_rate)  # [T]
    loud_db, quiet_db = _loud_and_quiet(levels)
    first, end = sound_span(levels)
    has_sound = _is_sound(levels, loud_db, quiet_db)
    duration_s = samples.shape[1] / sampling_rate
    bandwidth_hz, peakiness, pitch_hz = _spectral(mixed, sampling_rate)
    return RecordingMeasures(
        sampling_rate=sampling_rate,
        duration_s=duration_s,
        not_finite=not_finite,
        peak=peak,
        mean=mean,
        changes_db=max(
            (_level_db(channel - channel.mean()) for channel in samples if channel.size), default=LEVEL_FLOOR_DB
        ),
        mixed_db=_level_db(mixed),
        channel_db=tuple(_level_db(channel) for channel in samples),
        loud_db=loud_db,
        quiet_db=quiet_db,
        sound_s=float(has_sound.sum()) * FRAME_S,
        leading_s=min(duration_s, first * FRAME_S),
        trailing_s=max(0.0, duration_s - end * FRAME_S) if end < len(levels) else 0.0,
        longest_pause_s=_longest_run(~has_sound[first:end]) * FRAME_S,
        clipped=_clipped_share(samples),
        wrapped=_n_wrapped(samples),
        dropouts=_n_dropouts(mixed, sampling_rate),
        bandwidth_hz=bandwidth_hz,
        peakiness=peakiness,
        pitch_hz=pitch_hz,
        content=_content(mixed, sampling_rate),
    )


# ---- levels


def frame_levels_db(wav: np.ndarray, sampling_rate: int) -> np.ndarray:
    """[L] -> level of each 10 ms [T] in dB of full scale; what is left of the last frame is not counted."""
    frame = max(1, round(sampling_rate * FRAME_S))
    n_frames = len(wav) // frame
    squares = np.square(wav[: n_frames * frame].reshape(n_frames, frame)).mean(axis=1, dtype=np.float64)
    return 10.0 * np.log10(np.maximum(squares, 10.0 ** (LEVEL_FLOOR_DB / 10.0)))


def _level_db(wav: np.ndarray) -> float:
    power = float(np.square(wav).mean(dtype=np.float64)) if wav.size else 0.0
    return max(LEVEL_FLOOR_DB, 10.0 * math.log10(max(power, 1e-30)))


def _loud_and_quiet(levels: np.ndarray) -> tuple[float, float]:
    heard = levels[levels > LEVEL_FLOOR_DB]  # zeros that pad a recording say nothing about its noise
    if not len(heard):
        return LEVEL_FLOOR_DB, LEVEL_FLOOR_DB
    loud_db, quiet_db = np.percentile(heard, (95, 5))
    return float(loud_db), float(quiet_db)


def _is_sound(levels: np.ndarray, loud_db: float, quiet_db: float) -> np.ndarray:
    """Whether each frame holds sound [T]."""
    over_noise = min(quiet_db + SPEECH_OVER_NOISE_DB, loud_db - SPEECH_OVER_NOISE_DB)
    return levels > max(loud_db - SPEECH_BELOW_LOUD_DB, over_noise, LEVEL_FLOOR_DB)


def sound_span(levels: np.ndarray) -> tuple[int, int]:
    """First frame with sound and the one after the last, of levels [T]; without clicks. (0, T) where there is none."""
    if len(levels) < LEAST_SOUND_FRAMES:
        return 0, len(levels)
    is_sound = _is_sound(levels, *_loud_and_quiet(levels))
    steady = np.convolve(is_sound, np.ones(LEAST_SOUND_FRAMES, dtype=int), mode="valid") == LEAST_SOUND_FRAMES
    where = np.flatnonzero(steady)
    return (int(where[0]), int(where[-1]) + LEAST_SOUND_FRAMES) if len(where) else (0, len(levels))


def _longest_run(flags: np.ndarray) -> int:
    """Length of the longest run of True in [T]."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], flags.astype(np.int8), [0]))))
    return int((edges[1::2] - edges[::2]).max(initial=0))


# ---- clipping


def _clipped_share(samples: np.ndarray) -> float:
    """Share of samples [channels, n] that lie in runs at the largest or smallest value of their channel."""
    if not samples.size:
        return 0.0
    return max(_flat_tops(channel) + _flat_tops(-channel) for channel in samples) / samples.shape[1]


def _n_wrapped(samples: np.ndarray) -> int:
    """Jumps over nearly the whole scale in the channel that has most; samples [channels, n]."""
    if samples.shape[1] < 2:
        return 0
    return int((np.abs(np.diff(samples, axis=1)) > WRAPPED).sum(axis=1).max(initial=0))


def _n_dropouts(wav: np.ndarray, sampling_rate: int) -> int:
    """Runs of zeros in [L] that begin and end in the middle of sound; gates and synthesizers stop where it is quiet."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], (wav == 0).astype(np.int8), [0]))))
    first, end = edges[::2], edges[1::2]
    is_inside = (end - first >= DROPOUT_S * sampling_rate) & (first > 0) & (end < len(wav))
    before, after = np.abs(wav[first[is_inside] - 1]), np.abs(wav[end[is_inside]])
    level = DROPOUT_LEVEL * np.sqrt(np.mean(wav[wav != 0] ** 2)) if is_inside.any() else 0.0
    return int(np.count_nonzero(np.minimum(before, after) > level))


def _flat_tops(wav: np.ndarray) -> int:
    top = wav.max()
    if top < LEAST_CLIPPED:
        return 0
    at_top = np.flatnonzero(wav >= top - ALMOST_EXTREME * max(1.0, top))
    if len(at_top) < CLIPPED_RUN:
        return 0
    breaks = np.flatnonzero(np.diff(at_top) > 1)
    lengths = np.diff(np.concatenate(([-1], breaks, [len(at_top) - 1])))
    return int(lengths[lengths >= CLIPPED_RUN].sum())


# ---- spectra


def _spectral(wav: np.ndarray, sampling_rate: int) -> tuple[float, float, float]:
    """Bandwidth in Hz; peakiness and pitch in Hz of the louder frames."""
    size = 1 << math.ceil(math.log2(max(16.0, sampling_rate * SPECTRUM_S)))
    n_frames = len(wav) // size
    if not n_frames:
        wav, n_frames = np.pad(wav, (0, size - len(wav))), 1
    frames = wav[: n_frames * size].reshape(n_frames, size)  # [T, size]
    if n_frames > MAX_SPECTRA:
        frames = frames[np.linspace(0, n_frames - 1, MAX_SPECTRA).round().astype(int)]
    frames = (frames - frames.mean(axis=1, keepdims=True)) * np.hanning(size).astype(np.float32)
    spectra = np.abs(scipy.fft.rfft(frames, n=2 * size, axis=1))  # [T, size + 1]
    powers = np.square(spectra, dtype=np.float64)
    if not powers.sum() > 0:
        return 0.0, 0.0, 0.0
    energies = powers.sum(axis=1)
    is_loud = energies >= np.median(energies)
    return (
        _bandwidth_hz(powers.sum(axis=0), sampling_rate),
        _peakiness(spectra[is_loud], sampling_rate),
        _pitch_hz(powers[is_loud], sampling_rate),
    )


def _pitch_hz(powers: np.ndarray, sampling_rate: int) -> float:
    """Median over frames with a pitch, by the autocorrelation of powers [T, size + 1]; 0 where there are too few."""
    size = powers.shape[1] - 1
    shortest, longest = (round(sampling_rate / hz) for hz in PITCH_HZ[::-1])
    longest = min(longest, size // 2)
    if shortest < 2 or longest <= shortest + 2:
        return 0.0
    window = np.correlate(np.hanning(size), np.hanning(size), mode="full")[size - 1 :][: longest + 1]
    correlation = scipy.fft.irfft(powers, axis=1)[:, : longest + 1] / np.maximum(window, TINY)
    correlation = correlation / np.maximum(correlation[:, :1], TINY)  # [T, lags], 1 at lag 0
    inside = correlation[:, shortest:longest]
    is_peak = (inside >= correlation[:, shortest - 1 : longest - 1]) & (inside >= correlation[:, shortest + 1 :])
    heights = np.where(is_peak, inside, 0.0)
    highest = heights.max(axis=1)
    lags = shortest + np.argmax(heights >= FIRST_PEAK * highest[:, None], axis=1)  # the first that is high enough
    voiced = lags[highest > VOICED]
    return float(sampling_rate / np.median(voiced)) if len(voiced) >= LEAST_VOICED else 0.0


def _bandwidth_hz(power: np.ndarray, sampling_rate: int) -> float:
    """The frequency above which only a hidden share of power [bins] lies."""
    above = np.cumsum(power[::-1])[::-1] / power.sum()
    return float(np.count_nonzero(above > HIDDEN_SHARE) / len(power) * sampling_rate / 2)


def _peakiness(spectra: np.ndarray, sampling_rate: int) -> float:
    """Highest peak of magnitudes [T, bins] over their own surroundings; a high percentile over frames."""
    bin_hz = sampling_rate / 2 / (spectra.shape[1] - 1)
    first, end = (round(hz / bin_hz) for hz in VOICE_BAND_HZ)
    if first >= spectra.shape[1]:  # a recording of some hundred samples a second holds no voice
        return 0.0
    width = max(3, round(WHITENING_HZ / bin_hz))
    padded = np.pad(spectra, ((0, 0), (width // 2, width - width // 2)), mode="reflect")
    sums = np.cumsum(padded, axis=1, dtype=np.float64)
    around = (sums[:, width:] - sums[:, :-width]) / width  # [T, bins]
    white = (spectra / np.maximum(around, TINY))[:, first:end]  # [T, band]
    return float(np.percentile(white.max(axis=1), PEAKINESS_PERCENTILE))


def _content(mixed: np.ndarray, sampling_rate: int) -> str:
    """32 hex digits of the mixed signal in 16 bits, so that the same take in wav and in flac has one name."""
    pcm = np.rint(np.clip(mixed, -4.0, 4.0) * 8191.0).astype(np.int16)
    return hashlib.blake2b(pcm.tobytes(), digest_size=16, key=str(sampling_rate).encode("ascii")).hexdigest()
