"""What `use_audio_quality_enhancement` does to synthesised sound; recordings and training data never come here.

In this order: remove the offset, lower steady noise between the partials, trim silent edges, set the loudness.
All on a whole utterance in numpy.

Measured by DNSMOS (speechmos 0.0.1.1), before -> after. DNSMOS marks the same sound lower the louder it is, so `before`
is brought to the same loudness: 8 copy-syntheses by Griffin-Lim SIG 3.43 -> 3.44, BAK 3.65 -> 3.82, OVRL 2.96 -> 3.06,
P.808 3.22 -> 3.36; 3 samples of a half-trained voice SIG 2.09 -> 2.30, BAK 3.09 -> 3.15, OVRL 1.70 -> 1.86,
P.808 2.30 -> 2.68. Nobody listened.
"""

import math
from dataclasses import dataclass

import numpy as np
import scipy  # imports scipy.signal, which takes a second, when it is used

from audio.recordings import loud_part

TARGET_LUFS = -23.0  # EBU R 128's programme loudness
PEAK_CEILING = 10 ** (-1.0 / 20)  # -1 dBFS: where the target would clip, the utterance stays quieter

GATE_WINDOW_S = 0.046  # 1024 samples at 22050 Hz
NOISE_QUANTILE = 0.1  # of each bin's magnitudes over time: what is there even in the pauses
GATE_THRESHOLD = 2.0  # a bin counts as sound from this multiple of its noise on
GATE_FLOOR = 10 ** (-12.0 / 20)  # noise is lowered by 12 dB at most: DNSMOS rises up to there and falls at 18
SMOOTHING = (5, 3)  # bins and frames that gains are averaged over
KEEP_BEFORE_S, KEEP_AFTER_S = 0.05, 0.1  # of the quiet ends
LEAST_LEVEL = 1e-5  # of full scale; under it there is nothing but silence


@dataclass(frozen=True)
class Enhanced:
    """Speech after enhancement: float32 [at most L], how many samples were cut in front of it, and its gain."""

    wav: np.ndarray
    n_cut_before: int = 0
    gain: float = 1.0


def enhance(wav: np.ndarray, sampling_rate: int) -> np.ndarray:
    """[L] -> float32 [at most L], the same speech, cleaner and at TARGET_LUFS; silence and NaN stay as they are."""
    return enhanced(wav, sampling_rate).wav


def enhanced(wav: np.ndarray, sampling_rate: int) -> Enhanced:
    """wav [L] -> as `enhance`, with what was done."""
    if not len(wav) or not np.isfinite(wav).all() or np.ptp(wav) < LEAST_LEVEL:
        return Enhanced(wav)
    centred = wav.astype(np.float64) - wav.mean(dtype=np.float64)
    quiet = lower_noise(centred, sampling_rate)
    part = loud_part(quiet, sampling_rate=sampling_rate, keep_before_s=KEEP_BEFORE_S, keep_after_s=KEEP_AFTER_S)
    gain = loudness_gain(quiet[part], sampling_rate)
    return Enhanced((quiet[part] * gain).astype(np.float32), part.start, gain)


def lower_noise(wav: np.ndarray, sampling_rate: int) -> np.ndarray:
    """Spectral gating: [L] -> [L]. Each bin is lowered, by 12 dB at most, where it is near its own quietest tenth."""
    window = 2 ** round(math.log2(GATE_WINDOW_S * sampling_rate))
    if len(wav) < 4 * window:  # too short to know its noise
        return wav
    settings = {"fs": sampling_rate, "nperseg": window, "noverlap": 3 * window // 4}
    _, _, spectrum = scipy.signal.stft(wav, **settings)  # [bins, frames]
    magnitude = np.abs(spectrum)
    noise = GATE_THRESHOLD * np.quantile(magnitude, NOISE_QUANTILE, axis=1, keepdims=True)  # [bins, 1]
    gain = np.clip((magnitude - noise) / np.maximum(noise, LEAST_LEVEL * 1e-3), GATE_FLOOR, 1.0)
    gain = scipy.signal.convolve2d(gain, np.full(SMOOTHING, 1 / math.prod(SMOOTHING)), mode="same", boundary="symm")
    _, cleaned = scipy.signal.istft(spectrum * gain, **settings)
    return cleaned[: len(wav)]


def at_loudness(wav: np.ndarray, sampling_rate: int, target_lufs: float = TARGET_LUFS) -> np.ndarray:
    """[L] scaled to target_lufs, or to a peak of -1 dBFS if the target would exceed it."""
    return wav * loudness_gain(wav, sampling_rate, target_lufs)


def loudness_gain(wav: np.ndarray, sampling_rate: int, target_lufs: float = TARGET_LUFS) -> float:
    """What [L] is multiplied with to be at target_lufs, or at a peak of -1 dBFS if that is less; 1 for silence."""
    loudness = integrated_loudness(wav, sampling_rate)
    if not math.isfinite(loudness):
        return 1.0
    wanted = 10 ** ((target_lufs - loudness) / 20)
    return float(min(wanted, PEAK_CEILING / np.abs(wav).max()))


def integrated_loudness(wav: np.ndarray, sampling_rate: int) -> float:
    """Loudness of [L] in LUFS after ITU-R BS.1770-4: K-weighted blocks of 400 ms, gated at -70 and 10 under the mean.

    What is shorter than a block counts as one; -inf for silence.
    """
    weighted = scipy.signal.sosfilt(_k_weighting(sampling_rate), wav)
    block = min(len(weighted), round(0.4 * sampling_rate))
    starts = range(0, len(weighted) - block + 1, max(1, block // 4))
    powers = np.array([np.mean(np.square(weighted[i : i + block])) for i in starts])
    powers = powers[powers > _power(-70.0)]
    if not len(powers):
        return -math.inf
    powers = powers[powers > powers.mean() / 10]
    return -0.691 + 10 * math.log10(powers.mean())


def _power(lufs: float) -> float:
    return 10 ** ((lufs + 0.691) / 10)


def _k_weighting(sampling_rate: int) -> np.ndarray:
    """The head's high shelf and the low cut as second-order sections, for any rate.

    The standard gives coefficients for 48 kHz only; these are the analogue filters behind them (ITU-R BS.1770-4 annex 1
    by bilinear transform), equal to the standard's there to five digits.
    """
    gain, quality, corner = 3.999843853973347, 0.7071752369554196, 1681.974450955533
    k = math.tan(math.pi * corner / sampling_rate)
    high, band = 10 ** (gain / 20), (10 ** (gain / 20)) ** 0.4996667741545416
    a0 = 1 + k / quality + k * k
    shelf = [
        (high + band * k / quality + k * k) / a0, 2 * (k * k - high) / a0, (high - band * k / quality + k * k) / a0,
        1.0, 2 * (k * k - 1) / a0, (1 - k / quality + k * k) / a0,
    ]  # fmt: skip
    quality, corner = 0.5003270373238773, 38.13547087602444
    k = math.tan(math.pi * corner / sampling_rate)
    a0 = 1 + k / quality + k * k
    low_cut = [1.0, -2.0, 1.0, 1.0, 2 * (k * k - 1) / a0, (1 - k / quality + k * k) / a0]
    return np.array([shelf, low_cut])
