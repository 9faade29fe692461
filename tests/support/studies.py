"""Studies with made-up trials, and the search of the stand-in's trials, for the tests of the tuner."""

import json
from datetime import datetime, timedelta
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from audio.recordings import write_wav
from monitoring import plots
from smart_tuner.objective import WORST_VALUE

SPACE = {
    "learning_rate": FloatDistribution(1e-5, 1e-1, log=True),
    "dropout_rate": FloatDistribution(0.1, 0.5),
    "warmup_steps": IntDistribution(500, 3000),  # matters nothing
    "use_guided_attn": CategoricalDistribution((True, False)),
}
BAD_RATE = 1e-2  # over it everything fails
BEGAN = datetime(2026, 1, 2, 3, 0)


def value_of(params: dict[str, Any]) -> float:
    """Lower near a rate of 1e-3 and a dropout of 0.3; warmup_steps changes nothing."""
    if params["learning_rate"] > BAD_RATE:
        return WORST_VALUE
    distance = abs(log(params["learning_rate"] / 1e-3))
    return 0.5 + 0.1 * distance + 0.5 * abs(params["dropout_rate"] - 0.3) + 0.1 * (not params["use_guided_attn"])


def drawn(generator: np.random.Generator) -> dict[str, Any]:
    return {
        "learning_rate": float(10 ** generator.uniform(-5, -1)),
        "dropout_rate": float(generator.uniform(0.1, 0.5)),
        "warmup_steps": int(generator.integers(500, 3001)),
        "use_guided_attn": bool(generator.integers(2)),
    }


def random_study(n: int, *, seed: int = 0, name: str = "output") -> optuna.Study:
    """n finished trials, drawn at random, an hour each; those with too high a rate failed."""
    study, generator = optuna.create_study(study_name=name), np.random.default_rng(seed)
    for i in range(n):
        params = drawn(generator)
        value, began = value_of(params), BEGAN + timedelta(hours=i)
        is_failed = value == WORST_VALUE
        facts = {"ending": "diverged" if is_failed else "finished", "failed": is_failed, "epoch": 4.0, "step": 40}
        facts |= {} if is_failed else {"alignment": 0.9, "mel_distance": value - 0.05}
        trial = optuna.create_trial(params=params, distributions=SPACE, value=value, user_attrs=facts)
        trial.datetime_start, trial.datetime_complete = began, began + timedelta(minutes=50)
        study.add_trial(trial)
    return study


def write_trial(directory: Path) -> Path:
    """What a trial leaves that a page shows: attention and sound of its first text."""
    (directory / "samples").mkdir(parents=True)
    plots.save_png(plots.alignment_figure(np.eye(8, 4)), directory / "alignments" / "step_00000040_0.png")
    write_wav(directory / "samples" / "step_00000040_0.wav", np.sin(np.arange(6000) / 5).astype(np.float32), 8000)
    evaluated = {"type": "eval", "time": 1.0, "step": 40, "epoch": 4.0, "losses": {"mel_post": 0.5}, "score": 0.6}
    free = {"alignment": 0.9, "mel_distance": 0.5, "stop_rate": 1.0, "duration_error": 0.1}
    (directory / "metrics.jsonl").write_text(json.dumps(evaluated | {"free_running": free, "is_best": True}) + "\n")
    return directory
