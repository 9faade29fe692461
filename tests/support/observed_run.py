"""Records of a run, as the tests of the monitors need them."""

from pathlib import Path
from typing import Any

import numpy as np

from hparams import create_hparams
from monitoring.observer import RunInfo
from run_directory.records import EvalRecord, Sample, StepRecord

STARTED = {"parameters": 28_193_153, "device": "cpu", "training": 720, "validation": 20, "batches": 15}
FREE = {
    "alignment": 0.83, "coverage": 0.9, "monotonicity": 1.0, "sharpness": 0.7, "diagonality": 0.9, "end_reached": 1.0,
    "stop_rate": 0.75, "duration_error": 0.1, "mel_distance": 0.61,
}  # fmt: skip


def run_info(directory: Path, *, hparams: str = "", first_step: int = 0, total_steps: int | None = 2000) -> RunInfo:
    directory.mkdir(parents=True, exist_ok=True)
    values = create_hparams(hparams or None).canonical()
    return RunInfo(directory, directory / "logs", values, total_steps, first_step, "train.py -o output")


def step(n: int, *, loss: float = 0.5, **more: Any) -> StepRecord:
    facts = {
        "step": n, "epoch": n / 15, "losses": {"total": loss, "mel": loss / 3, "mel_post": loss / 2}, "grad_norm": 0.9,
        "learning_rate": 1e-3, "frames_per_s": 9000.0, "step_s": 0.8, "data_wait": 0.01, "padding": 0.08,
    }  # fmt: skip
    return StepRecord(**{**facts, **more})


def sample() -> Sample:
    rising = np.eye(8, 4, dtype=np.float32)
    mel = np.zeros((8, 16), dtype=np.float32)
    wav = np.sin(np.arange(2000) / 5).astype(np.float32)
    return Sample("Hi a", list("Hi a"), rising, np.zeros(8), mel, mel, "gate", wav, 8000, 0.016)


def validation(n: int, *, score: float = 0.7, samples: bool = True, **more: Any) -> EvalRecord:
    losses = {"mel": 0.5, "mel_post": 0.45, "gate": 0.01}
    facts = {"free_running": FREE, "is_best": True, "duration_s": 2.0, "samples": [sample()] if samples else []}
    return EvalRecord(step=n, epoch=n / 15, losses=losses, score=score, **{**facts, **more})
