"""What never losing a run costs: in the healthy step, and to look through the checkpoints of a dead one."""

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from campaigns.table import Place, Row
from checkpointing import directory as checkpoint_dir
from checkpointing.background_writer import CheckpointWriter
from corpus.batch import Batch
from hparams import resolve_hparams
from recovery.ladder import RecoveryPolicy
from support.corpora import tiny_settings
from support.paths import REPOSITORY
from support.runs import trained, trainer_of
from training.corpus_setup import with_demo_files
from training.fault_handling import FaultRecovery
from training.train_step import StepResult, TrainStep
from training.trainer import Limits, Trainer

INTERVALS = 2  # between saves, of the demo preset
FULL_SIZE_CHECKPOINTS = 3
MOST_COST, MOST_S_PER_GB = 0.01, 10.0
# Every call into the recovery code that a healthy step makes, by name: a renamed one stops the campaign.
RECOVERY = (
    (RecoveryPolicy, "limits"), (StepResult, "outcome"),
    (FaultRecovery, "after_step"), (FaultRecovery, "after_validation"),
    (TrainStep, "_snapshot"), (TrainStep, "_keep_statistics"), (Batch, "split"),
    (Trainer, "collect_saved_checkpoint"), (Trainer, "save"),
    (Trainer, "_reason_to_stop"),
)  # fmt: skip
BESIDE = ((CheckpointWriter, "_write"),)  # in the thread that writes: its processor time
STEPS = ((Trainer, "_step"), (Trainer, "_after_step"), (Trainer, "_reason_to_stop"))
NO_STEPS = ((Trainer, "_validate"),)


class Stopwatch:
    """Seconds within some methods, from outside: calls of one within another count once."""

    def __init__(self, methods: tuple[tuple[type, str], ...], clock: Callable[[], float] = time.perf_counter) -> None:
        self.total_s, self._inside = 0.0, threading.local()
        self._clock, self._originals = clock, [(owner, name, vars(owner)[name]) for owner, name in methods]
        for owner, name, original in self._originals:
            is_property = isinstance(original, property)
            setattr(owner, name, property(self._timed(original.fget)) if is_property else self._timed(original))

    def _timed(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*arguments: Any, **more: Any) -> Any:
            if getattr(self._inside, "is_so", False):
                return original(*arguments, **more)
            self._inside.is_so, began = True, self._clock()
            try:
                return original(*arguments, **more)
            finally:
                self.total_s += self._clock() - began
                self._inside.is_so = False

        return wrapper

    def stop(self) -> None:
        for owner, name, original in self._originals:
            setattr(owner, name, original)


def cost(place: Place, chance: random.Random) -> Row:
    """The demo voice, over whole intervals between saves: time within the recovery code over the time of the steps."""
    hp = with_demo_files(resolve_hparams(preset="demo").hparams)
    last = place.times(INTERVALS) * hp.iters_per_checkpoint
    trainer = trainer_of(hp, place.folder / "cost", limits=Limits(max_steps=1))
    trainer.fit()  # what is made once
    trainer.limits, n_steps = Limits(max_steps=last), last - 1
    watches = [Stopwatch(STEPS), Stopwatch(NO_STEPS), Stopwatch(RECOVERY), Stopwatch(BESIDE, time.thread_time)]
    try:
        trainer.fit()
    finally:
        for watch in reversed(watches):
            watch.stop()
    steps_s, validations_s, recovery_s, beside_s = (watch.total_s for watch in watches)
    steps_s -= validations_s
    share, with_writing = recovery_s / steps_s, (recovery_s + beside_s) / steps_s
    step_ms = 1000 * steps_s / n_steps
    outcome = (
        f"{100 * share:.2f} % of the time of {n_steps} steps of the demo voice ({step_ms:.0f} ms each, a save every "
        f"{hp.iters_per_checkpoint}); {100 * with_writing:.2f} % with the processor time of writing beside them"
    )
    return Row("(no fault) cost in a healthy step", outcome, share < MOST_COST)


def verifying(place: Place, chance: random.Random) -> Row:
    """The look of emergency_recovery.py through checkpoints of the full-size model, from the disk."""
    hp = resolve_hparams(overrides=f"{data_of(place)},iters_per_checkpoint=1,keep_checkpoints={FULL_SIZE_CHECKPOINTS}")
    run = place.folder / "full"
    trained(hp.hparams, run, FULL_SIZE_CHECKPOINTS)
    (run / "run.json").write_text("{}")
    paths = checkpoint_dir.all_checkpoints(run / "checkpoints")
    for path in paths:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # synced when it was saved
    n_gb = sum(path.stat().st_size for path in paths) / 1e9
    began = time.perf_counter()
    command = [sys.executable, str(REPOSITORY / "emergency_recovery.py"), str(run), "--dry-run"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    took_s = time.perf_counter() - began
    n_whole = done.stdout.count(" whole")
    outcome = (
        f"{n_whole} of {len(paths)} checkpoints of the full-size model, {n_gb:.2f} GB not in memory before, found "
        f"whole in {took_s:.1f} s, the command's own start included: {took_s / n_gb:.1f} s a GB"
    )
    is_kept = n_whole == len(paths) and took_s / n_gb < MOST_S_PER_GB
    return Row("(no fault) emergency_recovery.py looks through checkpoints", outcome, is_kept)


def data_of(place: Place) -> str:
    """The corpus, and mels of 80 channels of it."""
    kept = ("training_files", "validation_files", "dataset_path", "sampling_rate", "filter_length", "win_length",
            "hop_length", "mel_fmax", "num_workers", "validation_attention_analysis", "validate_interval")  # fmt: skip
    return ",".join(pair for pair in tiny_settings(place.corpus).split(",") if pair.split("=")[0] in kept)
