"""What the tests of vocoders share: generators so small that they are made and run in milliseconds, in real files."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from audio.mel import MelFingerprint
from hparams import AudioParams
from support.paths import REPOSITORY

GOLDEN = REPOSITORY / "tests" / "golden" / "vocoders"
# what authors' files are compared with: 8 kHz, hop 8, 80 bands (the number is fixed in HiFi-GAN's code)
SMALL_MEL = MelFingerprint.of(
    AudioParams(sampling_rate=8000, filter_length=64, hop_length=8, win_length=64, n_mel_channels=80, mel_fmax=4000.0)
)
GOLDENS = ("hifigan_block1", "hifigan_block2", "bigvgan_v1", "bigvgan_v2")


def golden(name: str) -> tuple[dict[str, Any], dict[str, Tensor], Tensor, Tensor]:
    """Config, tensors by the authors' names, mel [2, 80, T], and the sound [2, T * 8] that the authors' code makes."""
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        tensors = {key.removeprefix("tensors/"): torch.from_numpy(arrays[key]) for key in arrays if "/" in key}
        return (
            json.loads(str(arrays["config"])),
            tensors,
            torch.from_numpy(arrays["mel"]),
            torch.from_numpy(arrays["sound"]),
        )


def write_generator(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Path:
    """The file and config.json as the authors' training leaves them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    torch.save({"generator": dict(tensors)}, folder / "g_00000001")
    return folder / "g_00000001"


def write_golden(folder: Path, name: str = "hifigan_block1", **changes: Any) -> Path:
    config, tensors, _, _ = golden(name)
    return write_generator(folder, {**config, **changes}, tensors)
