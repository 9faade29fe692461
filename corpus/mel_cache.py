"""Mels of a corpus, made once: a cache on disk keyed by what the recording holds and by what shapes a mel.

    <cache>/features/index.json                            path -> size, mtime, sha256: spares hashing unchanged files
    <cache>/features/<fingerprint>/<sha[:2]>/<sha>.npy     float32 [n_mels, T_mel], log-mel, memory-mapped when read
    <cache>/features/<fingerprint>/statistics/<key>.json   mean and deviation over a set of recordings

Everything here may be deleted at any time and is made again.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Lock

import numpy as np
import torch

from audio.mel import MelFingerprint, mel_spectrogram
from audio.recordings import probe_audio, read_audio
from common.cache_dir import cache_directory, cache_file
from common.errors import DataError
from common.log import LOG
from common.processors import n_processors
from common.threads import one_thread_for_others
from corpus.filelists import Utterance
from corpus.findings import Finding, error
from corpus.hash_index import HashIndex
from hparams import AudioParams

MAX_WORKERS = 16  # decoding and hashing are bound by the disk beyond that

# numpy reads a file's header by ast.literal_eval, of which CPython 3.11 can't do two at once in threads (SystemError)
_READING_HEADER = Lock()


Progress = Callable[[int, int], None]


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
    problems: tuple[Finding, ...]
    n_built: int = 0
    n_resampled: int = 0
    n_rebuilt: int = 0  # cache entries that were damaged


@dataclass(frozen=True)
class _Outcome:
    feature: Feature | None = None
    problem: Finding | None = None
    is_built: bool = False
    is_resampled: bool = False
    is_rebuilt: bool = False


class BadRecording(Exception):
    """One recording gives no mel: what it is, and what to do."""

    def __init__(self, kind: str, detail: str, advice: str) -> None:
        super().__init__(f"{detail}; {advice}")
        self.finding = error(kind, detail, advice)


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
    n_threads = n_workers or min(MAX_WORKERS, n_processors())
    outcomes: list[_Outcome] = []
    one_thread_for_others()
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
        LOG.warning("%d mel spectrograms in the cache were damaged and are made anew (%s)", made.n_rebuilt, folder)
    if made.n_resampled:
        LOG.warning("%d recordings were resampled to %d Hz", made.n_resampled, audio.sampling_rate)
    total = len(made.features)
    LOG.info("%d mel spectrograms: %d made now, %d kept from before in %s",
             total, made.n_built, total - made.n_built, folder)  # fmt: skip


def _outcome(utterance: Utterance, *, audio: AudioParams, folder: Path, index: "HashIndex") -> _Outcome:
    try:
        return _read_or_build(utterance, audio=audio, folder=folder, index=index)
    except BadRecording as bad:
        return _Outcome(problem=bad.finding.at(utterance.source, utterance.line))


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
    except DataError as caught:
        detail, _, advice = str(caught).rpartition("; ")
        raise BadRecording("unreadable audio", detail, advice) from caught
    is_rebuilt = mel_path.exists()
    mel = _checked_mel(wav, audio, path=utterance.audio_path)
    with cache_file(mel_path) as file:
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
            "too short",
            f"{path} has {len(wav)} samples, less than one window (win_length={audio.win_length})",
            "drop it",
        )
    mel = mel_spectrogram(torch.from_numpy(wav), audio).numpy()
    if not np.isfinite(mel).all():
        raise BadRecording("unreadable audio", f"{path} gives a mel that is not finite", "export it again or drop it")
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


def _hash_of(path: Path, index: HashIndex) -> str:
    try:
        return index.sha256(path)
    except OSError as caught:
        raise BadRecording("unreadable audio", f"{path} can't be read ({caught.strerror})", "restore it") from caught
