"""Mels that were made elsewhere: filelists that name `.npy` files [n_mels, T_mel], checked instead of computed."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from audio.mel import silence_log_mel
from common.cache_dir import cache_directory
from common.log import LOG
from corpus.filelists import Problem, Utterance
from corpus.hash_index import HashIndex
from corpus.mel_cache import BadRecording, Feature, FeatureSet
from hparams import MelShape

FLOOR_TOLERANCE = 1e-3  # log-mel; float16 files round the floor by that much


def read_mel_files(
    utterances: Sequence[Utterance], shape: MelShape, *, progress: Callable[[int, int], None] | None = None
) -> FeatureSet:
    """The mel file of every utterance, checked; what can't be used becomes a problem with its file:line.

    The files stay where they are and are memory-mapped when read. They must hold natural logs of magnitude mels made
    with this run's audio parameters, which a file can't prove: one warning says how many lie under the floor.
    """
    index = HashIndex(cache_directory() / "features" / "index.json")
    features: list[Feature] = []
    problems: list[Problem] = []
    n_under_floor = 0
    for done, utterance in enumerate(utterances, start=1):
        try:
            mel = checked_mel(utterance.audio_path, n_mels=shape.n_mel_channels)
            sha256 = index.sha256(utterance.audio_path)
        except (BadRecording, OSError) as error:
            problems.append(Problem("unusable mel", str(error), utterance.source, utterance.line))
        else:
            features.append(Feature(utterance, utterance.audio_path, sha256, mel.shape[1]))
            n_under_floor += bool(mel.min() < silence_log_mel() - FLOOR_TOLERANCE)
        if progress is not None:
            progress(done, len(utterances))
    index.write()
    if n_under_floor:
        LOG.warning(
            "mel_files under_floor=%d of=%d floor=%.3f: these are no natural logs of magnitudes floored at 1e-5; "
            "Griffin-Lim and vocoders will not fit them", n_under_floor, len(features), silence_log_mel(),
        )  # fmt: skip
    return FeatureSet(tuple(features), tuple(problems))


def checked_mel(path: Path, *, n_mels: int) -> np.ndarray:
    """The file as a memory map [n_mels, T_mel]; BadRecording if it holds anything else."""
    try:
        mel = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise BadRecording("unusable mel", f"{path} is no .npy array ({error}); save it with numpy.save") from error
    if mel.ndim != 2 or mel.shape[0] != n_mels or not mel.shape[1]:
        advice = "transpose it" if mel.ndim == 2 and mel.shape[1] == n_mels else "make it again"
        raise BadRecording(
            "unusable mel", f"{path} has shape {mel.shape}, but n_mel_channels={n_mels} asks for ({n_mels}, frames); "
            f"{advice}",
        )  # fmt: skip
    if mel.dtype.kind != "f":
        raise BadRecording("unusable mel", f"{path} holds {mel.dtype}, not floats; save log-mels as float32")
    n_bad = mel.size - int(np.count_nonzero(np.isfinite(mel)))
    if n_bad:
        raise BadRecording("unusable mel", f"{path} holds {n_bad} values that are NaN or infinite; make it again")
    return mel
