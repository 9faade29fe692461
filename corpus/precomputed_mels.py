"""Mels that were made elsewhere: filelists that name `.npy` files [n_mels, T_mel], checked instead of computed."""

from collections.abc import Callable, Sequence
from math import inf
from pathlib import Path

import numpy as np

from common.cache_dir import cache_directory
from common.log import LOG
from corpus.filelists import Utterance
from corpus.findings import Finding, error
from corpus.hash_index import HashIndex
from corpus.mel_cache import BadRecording, Feature, FeatureSet
from corpus.mel_scale import check_mel_scale
from hparams import MelShape


def read_mel_files(
    utterances: Sequence[Utterance], shape: MelShape, *, progress: Callable[[int, int], None] | None = None
) -> FeatureSet:
    """The mel file of every utterance, checked; what can't be used becomes a problem with its file:line.

    The files stay where they are and are memory-mapped when read. They must hold natural logs of magnitude mels made
    with this run's audio parameters, which a file can't prove: a warning says if all look like another scale.
    """
    index = HashIndex(cache_directory() / "features" / "index.json")
    features: list[Feature] = []
    problems: list[Finding] = []
    least, largest = inf, -inf
    where: Utterance | None = None
    for done, utterance in enumerate(utterances, start=1):
        try:
            mel = checked_mel(utterance.audio_path, n_mels=shape.n_mel_channels)
            sha256 = index.sha256(utterance.audio_path)
        except BadRecording as bad:
            problems.append(bad.finding.at(utterance.source, utterance.line))
        except OSError as caught:
            found = error("unusable mel", f"{utterance.audio_path} can't be read ({caught.strerror})", "restore it")
            problems.append(found.at(utterance.source, utterance.line))
        else:
            features.append(Feature(utterance, utterance.audio_path, sha256, mel.shape[1]))
            if (lowest := float(mel.min())) < least:
                least, where = lowest, utterance
            largest = max(largest, float(mel.max()))
        if progress is not None:
            progress(done, len(utterances))
    index.write()
    if where and (odd := check_mel_scale(least, largest)):
        LOG.warning("%s (the least value is in this file)", odd.at(where.source, where.line).message)
    return FeatureSet(tuple(features), tuple(problems))


def checked_mel(path: Path, *, n_mels: int) -> np.ndarray:
    """The file as a memory map [n_mels, T_mel]; BadRecording if it holds anything else."""
    try:
        mel = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as caught:
        raise BadRecording("unusable mel", f"{path} is no .npy array ({caught})", "save it with numpy.save") from caught
    if mel.ndim != 2 or mel.shape[0] != n_mels or not mel.shape[1]:
        advice = "transpose it" if mel.ndim == 2 and mel.shape[1] == n_mels else "make it again"
        raise BadRecording(
            "unusable mel",
            f"{path} has shape {mel.shape}, but n_mel_channels={n_mels} asks for ({n_mels}, frames)",
            advice,
        )
    if mel.dtype.kind != "f":
        raise BadRecording("unusable mel", f"{path} holds {mel.dtype}, not floats", "save log-mels as float32")
    n_bad = mel.size - int(np.count_nonzero(np.isfinite(mel)))
    if n_bad:
        raise BadRecording("unusable mel", f"{path} holds {n_bad} values that are NaN or infinite", "make it again")
    return mel
