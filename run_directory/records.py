"""What a run records: steps, validations, samples and events, as plain data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class StepRecord:
    """Training, averaged over the steps since the last record."""

    step: int
    epoch: float
    losses: Mapping[str, float]  # by name; "total" is what was minimised, "mel" and "mel_post" are in log-mel units
    grad_norm: float  # before clipping
    learning_rate: float
    frames_per_s: float
    step_s: float
    data_wait: float  # share of the step spent waiting for data
    padding: float  # share of the frames that are padding
    skipped: int = 0  # steps not taken because loss or gradient was not finite
    modules: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # see module_norms.py; now and then


@dataclass(frozen=True)
class Sample:
    """One validation text spoken freely, beside the recording."""

    text: str
    symbols: Sequence[str]  # T_text, what the model read
    alignment: np.ndarray  # [T_dec, T_text]
    gate: np.ndarray  # [T_dec]
    mel: np.ndarray  # [n_mels, T_mel] log-mel
    target_mel: np.ndarray | None  # [n_mels, T_target]
    stop_reason: str
    wav: np.ndarray | None  # [L] float32, where a vocoder ran
    sampling_rate: int
    frame_s: float


@dataclass(frozen=True)
class EvalRecord:
    """Validation: teacher-forced losses, and what the model does on its own."""

    step: int
    epoch: float
    losses: Mapping[str, float]
    free_running: Mapping[str, float]  # see metrics.summarise
    score: float  # metrics.composite_score, lower is better
    is_best: bool
    duration_s: float
    samples: Sequence[Sample] = field(default=(), repr=False)  # not in metrics.jsonl


@dataclass(frozen=True)
class Event:
    """Something a person should be able to find later: started, resumed, saved, skipped, ended, crashed."""

    step: int
    kind: str
    message: str
    data: Mapping[str, Any] = field(default_factory=dict)


Record = StepRecord | EvalRecord | Event

URGENT_KINDS = frozenset(  # events to act on
    {
        *("alignment_alert", "skipped", "save_failed", "not_saved", "not_validated", "tightened", "rollback"),
        *("gave_up", "out_of_memory"),
    }
)
