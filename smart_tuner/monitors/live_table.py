"""The table of trials that a running search shows."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.live import Live
from rich.table import Table

from monitoring.logging_setup import CONSOLE
from smart_tuner.objective import Records, validations
from smart_tuner.storage import STORAGE_ERRORS
from smart_tuner.study import best_trial, finished, is_failed
from smart_tuner.trial_queue import origin_of, trial_name
from tools import format_value

SHOWN_TRIALS = 20  # a table fits on a screen


# -- while it runs ----------------------------------------------------------------------------------------------------


class TrialProgress:
    """What is known of a running trial: how far it is, and its latest validation."""

    def __init__(self, epochs: float) -> None:
        self.epochs, self.epoch = epochs, 0.0
        self.free_running: Mapping[str, float] = {}

    def update(self, records: Records) -> None:
        if records:
            self.epoch = max(record["epoch"] for record in records)
        judged = validations(records)
        if judged:
            self.free_running = judged[-1]["free_running"]


@contextmanager
def live_table(draw: Callable[[], Table]) -> Iterator[Callable[[], None]]:
    """A function to call again and again: on a terminal it shows what `draw` makes, elsewhere it does nothing."""
    if not CONSOLE.is_terminal:
        yield lambda: None
        return
    with Live(console=CONSOLE, auto_refresh=False, transient=True) as live:

        def show() -> None:
            with suppress(*STORAGE_ERRORS):  # the old table stays; whoever needs the database says so
                live.update(draw(), refresh=True)

        yield show


def trials_table(study: optuna.Study, watched: Mapping[str, TrialProgress], n_trials: int) -> Table:
    """Finished trials with their scores, running ones with how far they are; the best is marked."""
    done, best = finished(study), best_trial(study)
    table = Table(title=f"search: {len(done)} of {n_trials} trials finished")
    for heading in ("trial", "how", "value", "alignment", "mel distance", "epochs", "hyperparameters"):
        table.add_column(heading)
    for trial in done[-SHOWN_TRIALS:]:
        is_best = best is not None and trial.number == best.number
        table.add_row(*_finished_row(trial), style="bold" if is_best else "red" if is_failed(trial) else None)
    for name, progress in sorted(watched.items()):
        alignment, mel_distance, epochs = _running_row(progress)
        table.add_row(name, "running", "", alignment, mel_distance, epochs, "")
    return table


def trainings_table(watched: Mapping[str, TrialProgress], *, n_done: int, n: int) -> Table:
    """What `--confirm` runs here."""
    table = Table(title=f"confirming: {n_done} of {n} trainings finished")
    for heading in ("training", "alignment", "mel distance", "epochs"):
        table.add_column(heading)
    for name, progress in sorted(watched.items()):
        table.add_row(name, *_running_row(progress))
    return table


def _running_row(progress: TrialProgress) -> tuple[str, str, str]:
    """Alignment, mel distance, epochs."""
    free = progress.free_running
    alignment, mel_distance = (f"{free[name]:.3f}" if free else "-" for name in ("alignment", "mel_distance"))
    return alignment, mel_distance, f"{progress.epoch:.1f}/{progress.epochs:g}"


def _finished_row(trial: FrozenTrial) -> list[str]:
    value = f"{trial.value:.4f}" if trial.state == TrialState.COMPLETE and trial.value is not None else "-"
    parts = [trial.user_attrs.get(name) for name in ("alignment", "mel_distance", "epoch")]
    shown = ["-" if part is None else f"{part:.3g}" for part in parts]
    values = " ".join(f"{name}={_short(v)}" for name, v in trial.params.items())
    return [trial_name(origin_of(trial)), str(trial.user_attrs.get("ending")), value, *shown, values]


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else format_value(value)
