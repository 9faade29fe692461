"""What a person is told of a run at its start and at its end."""

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
    }


def describe(facts: Mapping[str, Any]) -> str:
    shared = f", each shared by {facts['processes']} processes" if facts["processes"] > 1 else ""
    return (
        f"{facts['parameters'] / 1e6:.2f} M parameters on {facts['device']}, {facts['training']} training and "
        f"{facts['validation']} validation utterances, {facts['batches']} batches an epoch{shared}"
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
    ended = "this run is already finished: it ended" if was_finished else "ended"
    run, best = paths.directory, trainer.progress.best_score
    best_step = trainer.progress.best_step
    ui = ui_command(run, trainer.hp.mlflow_tracking_uri) if trainer.hp.mlflow_logging else None
    return "\n".join(
        [
            f"{ended} at step {outcome.step} ({outcome.reason}); best score {best:.3f} at step {best_step}",
            f"pictures: {run}/alignments  sounds: {run}/samples  curves: tensorboard --logdir {paths.log_directory}",
            *([f"all runs: {ui}"] if ui else []),
            f'speak: python synthesize.py -c {run} "Hello." -o hello.wav',
        ]
    )
