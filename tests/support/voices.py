"""A small voice saved as a checkpoint."""

from collections.abc import Callable
from pathlib import Path

import torch

import checkpoint as ckpt
from data_utils import Corpus
from hparams import HParams
from model import Tacotron2
from voices import voice_of

Tiny = Callable[..., HParams]


def save_voice(hp: HParams, corpus: Corpus, run: Path, *, step: int = 3, seed: int = 1) -> Path:
    torch.manual_seed(seed)
    model = Tacotron2(hp)
    return ckpt.save(ckpt.Checkpoint(step, model.state_dict(), voice_of(hp, corpus), None), run / "checkpoints")
