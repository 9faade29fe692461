"""The table that a search draws on a terminal."""

import io

import optuna
import pytest
from optuna.trial import TrialState
from rich.console import Console

from smart_tuner.monitors import live_table
from smart_tuner.monitors.live_table import TrialProgress, trainings_table, trials_table
from smart_tuner.monitors.live_table import live_table as drawn


def test_finished_pruned_and_running_trials_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(live_table, "CONSOLE", Console(file=terminal, force_terminal=True, width=160))
    study = optuna.create_study()
    for state, value in ((TrialState.COMPLETE, 0.5), (TrialState.PRUNED, None)):
        study.add_trial(optuna.create_trial(state=state, value=value, user_attrs={"ending": "done", "alignment": 0.9}))
    progress = TrialProgress(10)
    progress.update([{"type": "step", "epoch": 2.5}])
    with drawn(lambda: trials_table(study, {"trial_00007": progress}, 3)) as draw:
        draw()
        shown = terminal.getvalue()
    assert "search: 2 of 3 trials finished" in shown and "0.5000" in shown and "2.5/10" in shown


def test_what_confirms_is_drawn() -> None:
    progress = TrialProgress(10)
    progress.update([{"type": "step", "epoch": 2.5}])
    console = Console(file=io.StringIO(), width=160, record=True)
    console.print(trainings_table({"confirm_00003_seed_7": progress}, n_done=1, n=4))
    shown = console.export_text()
    assert "1 of 4 trainings finished" in shown and "confirm_00003_seed_7" in shown and "2.5/10" in shown
