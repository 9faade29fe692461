"""The switches of train.py that are not hyperparameters."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """The switches of train.py that are not hyperparameters."""

    output: Path | None = None
    logs: Path | None = None
    checkpoint: Path | None = None
    warm_start: bool = False
    base_steps: int | None = None  # begin from a base voice of so many steps, see base_voice.py; None: do not
    ignore_prefixes: tuple[str, ...] = ()  # of weights that a warm start leaves out
    max_steps: int | None = None
    max_minutes: float | None = None
    fresh: bool = False
    resume_with_changes: bool = False
    skip_bad_data: bool = False
    n_gpus: int | None = None
    rank: int | None = None  # among n_gpus processes that were started by hand
