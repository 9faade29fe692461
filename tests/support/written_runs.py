"""A run directory as training leaves it, written by what training writes with, but made in milliseconds."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml

from hparams import create_hparams
from monitoring.observer import RunInfo
from monitoring.sample_files import SampleFiles
from run_directory.metrics_log import RunLog
from run_directory.records import EvalRecord, Event, Sample, StepRecord

RATE = 8000


def step_record(step: int, *, total: float | None = None, **more: float) -> StepRecord:
    falling = 1.0 / (1 + step / 50)
    losses = {"total": falling if total is None else total, "mel_post": 2 * falling, "gate": 0.01 * falling}
    numbers = {"grad_norm": 0.5, "learning_rate": 1e-3, "frames_per_s": 9000.0, "step_s": 0.2, "data_wait": 0.01}
    return StepRecord(step, step / 38, losses, padding=0.02, **{**numbers, **more})


def eval_record(
    step: int, *, score: float = 0.2, alignment: float = 0.97, is_best: bool = True, texts: Sequence[str] = ()
) -> EvalRecord:
    free = {"alignment": alignment, "coverage": 0.99, "monotonicity": 1.0, "sharpness": 0.8, "stop_rate": 0.95}
    free |= {"duration_error": 0.01, "mel_distance": 0.16}
    samples = [sample(text) for text in texts]
    return EvalRecord(step, step / 38, {"mel_post": 0.3, "gate": 0.01}, free, score, is_best, 1.0, samples)


def sample(text: str, *, seconds: float = 2.5) -> Sample:
    n_steps, n_symbols = 24, 12
    mel = np.linspace(-11, 0, 8 * n_steps, dtype=np.float32).reshape(8, n_steps)
    time_s = np.arange(int(seconds * RATE)) / RATE
    alignment = np.eye(n_symbols, dtype=np.float32)[np.arange(n_steps) // 2]  # [T_dec, T_text]
    wav = (0.4 * np.sin(2 * np.pi * 300 * time_s)).astype(np.float32)
    gate = np.linspace(0, 1, n_steps)
    return Sample(text, list("abcdefghijkl"), alignment, gate, mel, mel, "gate", wav, RATE, 0.012)


def info_of(directory: Path, *, total_steps: int | None = None) -> RunInfo:
    return RunInfo(directory, directory / "logs", {}, total_steps, 0, "train.py")


def write_run(
    directory: Path,
    *,
    n_steps: int = 40,
    texts: Sequence[str] = ("a low tone",),
    settings: str = "batch_size=7",
    is_ended: bool = False,
) -> Path:
    """Training to step 10 * n_steps, one validation with sounds and pictures, one alert."""
    log, files = RunLog(directory, attempt=1), SampleFiles(plot_every=1)
    files.on_start(info_of(directory))
    log.rewind(0)
    log.write(Event(0, "started", "2.60 M parameters on cpu, 5 training utterances"))
    for i in range(1, n_steps + 1):
        log.write(step_record(10 * i))
    if texts:
        validated = eval_record(10 * n_steps, texts=texts)
        log.write(validated)
        files.on_record(validated)
    skipped = "the gradient was not finite (nan); the step was not taken"
    log.write(Event(10 * n_steps, "skipped", skipped, {"utterances": ["0"]}))
    log.write(Event(10 * n_steps, "saved", "step_1.pt"))
    if is_ended:
        log.write(Event(10 * n_steps, "ended", "max_steps"))
    log.close()
    (directory / "hparams.yaml").write_text(yaml.safe_dump(create_hparams(settings).canonical()), encoding="utf-8")
    run = {"command": ["train.py", "-o", "a b"], "attempt": 1, "data": "own.csv", "versions": {"torch": "2.13.0"}}
    (directory / "run.json").write_text(json.dumps(run), encoding="utf-8")
    return directory
