"""Drop frame rate (arXiv 1909.01145): now and then the teacher shows the mean frame, so that the text must be heeded.

The mean frame of the training set lies in `global_mean_npy` as float32 [n_mels] log-mel. Beside it `<name>.json` says
of which recordings and audio parameters it is; where that does not fit, it is computed again.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from audio.mel import MelFingerprint
from common.cache_dir import cache_directory
from common.files import atomic_file, explain_write_errors, write_atomic
from corpus.mel_cache import Feature, read_mel
from corpus.mel_statistics import MelStats
from hparams import HParams


def standardised_mean_frame(features: Sequence[Feature], hp: HParams, stats: MelStats) -> Tensor:
    """[n_mels], as the model sees mels."""
    return torch.from_numpy((global_mean(features, hp) - stats.mean) / stats.std).float()


def global_mean(features: Sequence[Feature], hp: HParams) -> np.ndarray:
    """The mean log-mel frame over all frames of the recordings: float32 [n_mels], from its file or computed now.

    UserError if the file cannot be written.
    """
    key = _key(features, hp)
    path = _path_of(key, hp)
    mean = _stored(path, key, hp.n_mel_channels)
    if mean is None:
        mean = mean_frame(read_mel(feature.mel_path) for feature in features)
        with explain_write_errors(f"global_mean_npy={path}", next_step="name another place for it"):
            with atomic_file(path) as file:
                np.save(file, mean, allow_pickle=False)
            write_atomic(_note_of(path), json.dumps({**key, "sha256": _sha256(path)}))
    return mean


def mean_frame(mels: Iterable[np.ndarray]) -> np.ndarray:
    """Mean over the frames of mels [n_mels, T_mel], each frame counting once; summed in float64."""
    total, n_frames = np.zeros(()), 0
    for mel in mels:
        total = total + mel.sum(axis=1, dtype=np.float64)
        n_frames += mel.shape[1]
    return (total / n_frames).astype(np.float32)


def _key(features: Sequence[Feature], hp: HParams) -> dict[str, str]:
    recordings = "\n".join(sorted(feature.sha256 for feature in features))
    return {
        "recordings": hashlib.sha256(recordings.encode("ascii")).hexdigest(),
        "mel": MelFingerprint.of(hp).digest,
    }


def _path_of(key: dict[str, str], hp: HParams) -> Path:
    """A relative name lies in the feature cache, where each corpus has a folder of its own."""
    folder = cache_directory() / "features" / key["mel"] / "statistics" / key["recordings"][:32]
    return folder / Path(hp.global_mean_npy).expanduser()


def _note_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _stored(path: Path, key: dict[str, str], n_mels: int) -> np.ndarray | None:
    """The mean that an earlier run left; None if it is of other data, damaged, or not there."""
    try:
        note = json.loads(_note_of(path).read_text(encoding="ascii"))
        if note != {**key, "sha256": _sha256(path)}:
            return None
        mean = np.load(path, allow_pickle=False)
    except (OSError, EOFError, ValueError):
        return None
    return mean if mean.dtype == np.float32 and mean.shape == (n_mels,) else None
