"""A small voice saved as a checkpoint."""

from collections.abc import Callable
from pathlib import Path

import torch

from checkpointing import directory as checkpoint_dir
from checkpointing.checkpoint_file import Checkpoint
from data_utils import Corpus
from hparams import HParams
from model import Tacotron2
from training.voice_info import voice_info_of

Tiny = Callable[..., HParams]


def save_voice(hp: HParams, corpus: Corpus, run: Path, *, step: int = 3, seed: int = 1) -> Path:
    torch.manual_seed(seed)
    model = Tacotron2(hp)
    return checkpoint_dir.save(
        Checkpoint(step, model.state_dict(), voice_info_of(hp, corpus), None), run / "checkpoints"
    )
