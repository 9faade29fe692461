"""Mean and deviation of a corpus' mels, and the way between standardised and log-mel units."""

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from audio.mel import MelFingerprint, silence_log_mel
from common.cache_dir import cache_directory, cache_file
from common.errors import DataError
from corpus.mel_cache import Feature, read_mel
from hparams import AudioParams


@dataclass(frozen=True)
class MelStats:
    """One mean and one deviation over all values of the training mels; 0 and 1 leave mels as they are."""

    mean: float
    std: float

    @property
    def padding_value(self) -> float:
        """What a frame after the end holds: standardised silence; 0 for mels as they are, as NVIDIA pads."""
        if self == IDENTITY:
            return 0.0
        return (silence_log_mel() - self.mean) / self.std


IDENTITY = MelStats(mean=0.0, std=1.0)


# ---- statistics


def training_stats(features: Sequence[Feature], audio: AudioParams) -> MelStats:
    """Mean and deviation of the training mels, remembered by the set of recordings.

    DataError if all values are the same, as in digital silence: nothing could be learned or standardised.
    """
    key = hashlib.sha256("\n".join(sorted(feature.sha256 for feature in features)).encode("ascii")).hexdigest()
    folder = cache_directory() / "features" / MelFingerprint.of(audio).digest / "statistics"
    path = folder / f"{key[:32]}.json"
    stats = _read_stats(path)
    if stats is None:
        stats = mel_stats(read_mel(feature.mel_path) for feature in features)
        with cache_file(path) as file:
            file.write(json.dumps(asdict(stats)).encode("ascii"))
    if not stats.std > 0:
        raise DataError(
            f"all {len(features)} training mels hold the one value {stats.mean:.4f} (digital silence?); "
            "check the recordings"
        )
    return stats


def mel_stats(mels: Iterable[np.ndarray]) -> MelStats:
    """One mean and one population deviation over all values of mels [n_mels, T_mel]; summed in float64."""
    n_values, total, squares = 0, 0.0, 0.0
    for mel in mels:
        wide = np.asarray(mel, dtype=np.float64)
        n_values += wide.size
        total += float(wide.sum())
        squares += float(np.square(wide).sum())
    mean = total / n_values
    # log-mels lie within about -12..3: the difference of squares keeps more than 10 of 16 digits
    variance = squares / n_values - mean * mean
    is_constant = variance <= 1e-12 * max(1.0, mean * mean)
    return MelStats(mean, 0.0 if is_constant else math.sqrt(variance))


def _read_stats(path: Path) -> MelStats | None:
    try:
        stored = json.loads(path.read_text(encoding="ascii"))
        return MelStats(float(stored["mean"]), float(stored["std"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def to_log_mel_units(name: str, value: float, stats: MelStats) -> float:
    """Mean squared errors of standardised mels, as they are in log-mel."""
    return value * stats.std**2 if name.startswith("mel") else value
