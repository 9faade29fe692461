"""Small checkpoints and a writer for them."""

from pathlib import Path

import torch

from checkpointing.background_writer import CheckpointWriter
from checkpointing.checkpoint_file import Checkpoint, VoiceInfo

SYMBOLS = ("_", "a", "b", "c")
VOICE = VoiceInfo({"seed": 1}, SYMBOLS, {"hop": 128}, -4.0, 2.0, 9.0)


def made(step: int, *, value: float = 0.0, n: int = 64) -> Checkpoint:
    return Checkpoint(step, {"w": torch.full((n,), value)}, VOICE, {"progress": {"step": step}})


def writer_of(directory: Path, *, keep_last: int = 3, milestone_every: int = 0) -> CheckpointWriter:
    return CheckpointWriter(directory, keep_last=keep_last, milestone_every=milestone_every)
