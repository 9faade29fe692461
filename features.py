"""Mels of a corpus, made once: a cache on disk keyed by what the recording holds and by what shapes a mel.

    <cache>/features/index.json                            path -> size, mtime, sha256: spares hashing unchanged files
    <cache>/features/<fingerprint>/<sha[:2]>/<sha>.npy     float32 [n_mels, T_mel], log-mel, memory-mapped when read
    <cache>/features/<fingerprint>/statistics/<key>.json   mean and deviation over a set of recordings

Everything here may be deleted at any time and is made again.
"""

import hashlib
import json
import logging
import math
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from threading import Lock

import numpy as np
import torch

from audio.mel import MelFingerprint, mel_spectrogram, silence_log_mel
from audio.recordings import probe_audio, read_audio
from common.cache_dir import _cache_file, cache_directory
from common.errors import DataError
from common.threads import keep_for_this_thread
from filelists import Problem, ProblemKind, Utterance
from hparams import AudioParams

HASH_BLOCK_BYTES = 1 << 20
MAX_WORKERS = 16  # decoding and hashing are bound by the disk beyond that

# numpy reads a file's header by ast.literal_eval, of which CPython 3.11 can't do two at once in threads (SystemError)
_READING_HEADER = Lock()

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]


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


@dataclass(frozen=True)
class Feature:
    """The mel of one utterance: mel_path holds float32 [n_mels, n_frames]; sha256 is the recording's."""

    utterance: Utterance
    mel_path: Path
    sha256: str
    n_frames: int


@dataclass(frozen=True)
class FeatureSet:
    """Features in filelist order, the lines that gave none, and what was done to get them."""

    features: tuple[Feature, ...]
    problems: tuple[Problem, ...]
    n_built: int = 0
    n_resampled: int = 0
    n_rebuilt: int = 0  # cache entries that were damaged


@dataclass(frozen=True)
class _Outcome:
    feature: Feature | None = None
    problem: Problem | None = None
    is_built: bool = False
    is_resampled: bool = False
    is_rebuilt: bool = False


class BadRecording(Exception):
    """One recording gives no mel; never leaves this module."""

    def __init__(self, kind: ProblemKind, detail: str) -> None:
        super().__init__(detail)
        self.kind: ProblemKind = kind


def build_features(
    utterances: Sequence[Utterance],
    audio: AudioParams,
    *,
    progress: Progress | None = None,
    n_workers: int | None = None,
) -> FeatureSet:
    """The mel of every utterance, from the cache or made now; what gives none becomes a problem with its file:line.

    progress(done, total) is called from this thread. Threads, not processes: decoding, FFT and matrix products release
    the interpreter lock, and a process takes seconds to import torch.
    """
    index_path = cache_directory() / "features" / "index.json"
    index = HashIndex(index_path)
    folder = cache_directory() / "features" / MelFingerprint.of(audio).digest
    n_threads = n_workers or min(MAX_WORKERS, os.cpu_count() or 1)
    outcomes: list[_Outcome] = []
    keep_for_this_thread()
    with ThreadPoolExecutor(n_threads) as pool:
        for outcome in pool.map(partial(_outcome, audio=audio, folder=folder, index=index), utterances):
            outcomes.append(outcome)
            if progress is not None:
                progress(len(outcomes), len(utterances))
    index.write()
    made = FeatureSet(
        features=tuple(outcome.feature for outcome in outcomes if outcome.feature is not None),
        problems=tuple(outcome.problem for outcome in outcomes if outcome.problem is not None),
        n_built=sum(outcome.is_built for outcome in outcomes),
        n_resampled=sum(outcome.is_resampled for outcome in outcomes),
        n_rebuilt=sum(outcome.is_rebuilt for outcome in outcomes),
    )
    _log_what_was_done(made, audio, folder)
    return made


def _log_what_was_done(made: FeatureSet, audio: AudioParams, folder: Path) -> None:
    if made.n_rebuilt:
        logger.warning("features rebuilt_damaged=%d folder=%s", made.n_rebuilt, folder)
    if made.n_resampled:
        logger.warning("features resampled=%d to_hz=%d", made.n_resampled, audio.sampling_rate)
    logger.info("features total=%d built=%d folder=%s", len(made.features), made.n_built, folder)


def _outcome(utterance: Utterance, *, audio: AudioParams, folder: Path, index: "HashIndex") -> _Outcome:
    try:
        return _read_or_build(utterance, audio=audio, folder=folder, index=index)
    except BadRecording as bad:
        return _Outcome(problem=Problem(bad.kind, f"{utterance.where}: {bad}"))


def _read_or_build(utterance: Utterance, *, audio: AudioParams, folder: Path, index: "HashIndex") -> _Outcome:
    sha256 = _hash_of(utterance.audio_path, index)
    mel_path = folder / sha256[:2] / f"{sha256}.npy"
    feature = Feature(utterance, mel_path, sha256, 0)
    n_frames = cached_frames(mel_path, n_mels=audio.n_mel_channels)
    if n_frames is not None and audio.resample:
        return _Outcome(feature=replace(feature, n_frames=n_frames))
    try:
        rate = probe_audio(utterance.audio_path).sampling_rate
        # resample is no part of the cache's key (the mel is the same), so that rate is checked before a hit counts
        if n_frames is not None and rate == audio.sampling_rate:
            return _Outcome(feature=replace(feature, n_frames=n_frames))
        wav = read_audio(utterance.audio_path, audio)
    except DataError as error:
        raise BadRecording("unreadable audio", str(error)) from error
    is_rebuilt = mel_path.exists()
    mel = _checked_mel(wav, audio, path=utterance.audio_path)
    with _cache_file(mel_path) as file:
        np.save(file, mel, allow_pickle=False)
    return _Outcome(
        feature=replace(feature, n_frames=mel.shape[1]),
        is_built=True,
        is_resampled=rate != audio.sampling_rate,
        is_rebuilt=is_rebuilt,
    )


def _checked_mel(wav: np.ndarray, audio: AudioParams, *, path: Path) -> np.ndarray:
    """[L] -> float32 [n_mels, T_mel], C order."""
    if len(wav) < audio.win_length:
        raise BadRecording(
            "too short", f"{path} has {len(wav)} samples, less than one window (win_length={audio.win_length}); drop it"
        )
    mel = mel_spectrogram(torch.from_numpy(wav), audio).numpy()
    if not np.isfinite(mel).all():
        raise BadRecording("unreadable audio", f"{path} gives a mel that is not finite; export it again or drop it")
    return np.ascontiguousarray(mel, dtype=np.float32)


def cached_frames(path: Path, *, n_mels: int) -> int | None:
    """T_mel of a stored mel; None if there is none, or if it is damaged: truncated, of another type or shape."""
    try:
        mel = read_mel(path)
    except (OSError, EOFError, ValueError):
        return None
    is_sound = mel.dtype == np.float32 and mel.ndim == 2 and mel.shape[0] == n_mels and mel.shape[1] > 0
    return int(mel.shape[1]) if is_sound else None


def read_mel(path: Path, *, mapped: bool = True) -> np.ndarray:
    """A stored log-mel: float32 (or what a file of the user's holds) [n_mels, T_mel]; mapped read-only, or copied."""
    with _READING_HEADER:
        return np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)


# ---- hashes


class HashIndex:
    """sha256 of files, remembered by path, size and modification time; safe to share between threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = _read_index(path)
        self._added: dict[str, tuple[int, int, str]] = {}

    def sha256(self, path: Path) -> str:
        """Hex digest of the file's content; OSError if it cannot be read."""
        status = path.stat()
        known = self._known.get(str(path))
        if known is not None and known[:2] == (status.st_size, status.st_mtime_ns):
            return known[2]
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(HASH_BLOCK_BYTES):
                digest.update(block)
        self._added[str(path)] = (status.st_size, status.st_mtime_ns, digest.hexdigest())
        return digest.hexdigest()

    def write(self) -> None:
        """Adds what is new to the file on disk, which another run may have changed meanwhile."""
        if self._added:
            merged = _read_index(self._path) | self._added
            with _cache_file(self._path) as file:
                file.write(json.dumps(merged).encode("utf-8"))


def _read_index(path: Path) -> dict[str, tuple[int, int, str]]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return {name: (int(size), int(mtime_ns), str(sha256)) for name, (size, mtime_ns, sha256) in entries.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        logger.warning("index=%s unreadable=%s: every recording is hashed again", path, error)
        return {}


def _hash_of(path: Path, index: HashIndex) -> str:
    try:
        return index.sha256(path)
    except OSError as error:
        raise BadRecording("unreadable audio", f"{path} can't be read ({error.strerror}); restore it") from error


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
        with _cache_file(path) as file:
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
