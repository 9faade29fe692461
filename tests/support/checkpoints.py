"""Small checkpoints and a writer for them."""

from pathlib import Path

import torch

import checkpoint as ckpt
from saving import Saver

SYMBOLS = ("_", "a", "b", "c")
VOICE = ckpt.Voice({"seed": 1}, SYMBOLS, {"hop": 128}, -4.0, 2.0, 9.0, 30)


def made(step: int, *, value: float = 0.0, n: int = 64) -> ckpt.Checkpoint:
    return ckpt.Checkpoint(step, {"w": torch.full((n,), value)}, VOICE, {"progress": {"step": step}})


def saver_of(directory: Path, *, keep_last: int = 3, milestone_every: int = 0) -> Saver:
    return Saver(directory, keep_last=keep_last, milestone_every=milestone_every)
