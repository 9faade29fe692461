"""Small checkpoints and a writer for them."""

from pathlib import Path

import torch

from checkpointing.background_writer import Saver
from checkpointing.checkpoint_file import Checkpoint, Voice

SYMBOLS = ("_", "a", "b", "c")
VOICE = Voice({"seed": 1}, SYMBOLS, {"hop": 128}, -4.0, 2.0, 9.0, 30)


def made(step: int, *, value: float = 0.0, n: int = 64) -> Checkpoint:
    return Checkpoint(step, {"w": torch.full((n,), value)}, VOICE, {"progress": {"step": step}})


def saver_of(directory: Path, *, keep_last: int = 3, milestone_every: int = 0) -> Saver:
    return Saver(directory, keep_last=keep_last, milestone_every=milestone_every)
