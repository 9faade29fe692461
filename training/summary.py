"""What a person is told of a run at its start and at its end."""

import shlex
import signal
import sys
from collections.abc import Mapping
from math import isfinite
from typing import Any

from run_directory.paths import RunPaths
from training.trainer import Outcome, Trainer


def facts_of(trainer: Trainer) -> dict[str, Any]:
    """What a person wants to know of a run that starts."""
    return {
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
        "device": str(trainer.device),
        "training": len(trainer.corpus.train),
        "validation": len(trainer.corpus.validation),
        "batches": trainer.batches.in_epoch(0),
        "processes": trainer.group.size,
        "patience": trainer.hp.early_stopping_patience if trainer.hp.early_stopping else None,
        "validate_interval": trainer.hp.validate_interval,
    }


def describe(facts: Mapping[str, Any]) -> str:
    patience, interval = facts["patience"], facts["validate_interval"]
    plan = f"; ends when {patience} validations in a row, one every {interval} steps, bring nothing better"
    plan = plan if patience else ""
    shared = f", each shared by {facts['processes']} processes" if facts["processes"] > 1 else ""
    return (
        f"{facts['parameters'] / 1e6:.2f} M parameters on {facts['device']}, {facts['training']} training and "
        f"{facts['validation']} validation utterances, {facts['batches']} batches an epoch{shared}{plan}"
    )


def ending(outcome: Outcome, trainer: Trainer) -> dict[str, Any]:
    """The data of the `ended` event."""
    progress = trainer.progress
    best = progress.best_score if isfinite(progress.best_score) else None  # None: never validated
    found = {"signal": outcome.signal, "best_score": best, "best_step": progress.best_step}
    return {**found, **({"not_saved": trainer.lost_steps} if trainer.lost_steps else {})}


def closing_summary(outcome: Outcome, paths: RunPaths, trainer: Trainer, *, first_step: int) -> str:
    from monitoring.mlflow_store import ui_command

    was_finished = outcome.signal is None and outcome.step == first_step
    run, logs = (shlex.quote(str(path)) for path in (paths.directory, paths.log_directory))
    progress, interval = trainer.progress, trainer.hp.validate_interval
    ui = ui_command(paths.directory, trainer.hp.mlflow_tracking_uri) if trainer.hp.mlflow_logging else None
    ended = how_it_ended(outcome, is_saved=not trainer.lost_steps)
    ended = f"this run is already finished: it {ended}" if was_finished else ended
    if isfinite(progress.best_score):
        ended += f"; best score {progress.best_score:.3f} (lower is better) at step {progress.best_step}"
        seen = f"pictures: {run}/alignments  sounds: {run}/samples"
    else:
        first = interval * (outcome.step // interval + 1)
        seen = f"no pictures or sounds yet: the first validation is at step {first}"
    return "\n".join(
        [
            ended,
            seen,
            f"report: {run}/report.html  curves: tensorboard --logdir {logs}",
            *([f"all runs: {ui}"] if ui else []),
            f'speak: python synthesize.py -c {run} "Hello." -o hello.wav',
        ]
    )


def how_it_ended(outcome: Outcome, *, is_saved: bool) -> str:
    if outcome.signal is None:
        return f"ended at step {outcome.step} ({outcome.reason})"
    name = signal.Signals(outcome.signal).name
    again = "the same command without --fresh" if "--fresh" in sys.argv else "the same command"
    saved = f" and saved it; {again} goes on" if is_saved else ""  # what is lost is an error of its own
    return f"ended at step {outcome.step} by {name}{saved}"
