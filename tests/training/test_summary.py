"""What is told at the end of a run leads on."""

import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hparams import HParams
from run_directory.paths import RunPaths
from support.runs import trainer_of
from training.summary import closing_summary, describe, facts_of, how_it_ended
from training.trainer import Limits, Outcome

Tiny = Callable[..., HParams]


def test_a_run_that_was_interrupted_says_what_comes_next(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trainer_of(tiny("validate_interval=50,mlflow_logging=False"), tmp_path)
    paths = RunPaths(tmp_path / "my voice", tmp_path / "logs", True)
    said = closing_summary(Outcome("signal", 41, int(signal.SIGINT)), paths, trainer, first_step=0)
    assert "ended at step 41 by SIGINT and saved it; the same command goes on" in said
    monkeypatch.setattr(sys, "argv", ["train.py", "--fresh"])  # which would begin anew once more
    assert "; the same command without --fresh goes on" in how_it_ended(Outcome("signal", 41, 2), is_saved=True)
    lost = how_it_ended(Outcome("signal", 41, int(signal.SIGINT)), is_saved=False)
    assert lost == "ended at step 41 by SIGINT"
    assert "no pictures or sounds yet: the first validation is at step 50" in said
    assert f"python synthesize.py -c '{tmp_path / 'my voice'}' " in said


def test_a_run_without_a_named_end_says_when_it_ends(tiny: Tiny, tmp_path: Path) -> None:
    endless = trainer_of(tiny("epochs=500000,early_stopping=True,validate_interval=7"), tmp_path)
    assert endless.total_steps is None
    told = describe(facts_of(endless))
    assert told.endswith("; ends when 15 validations in a row, one every 7 steps, bring nothing better")
    limited = trainer_of(tiny("epochs=500000"), tmp_path, limits=Limits(max_steps=5))
    assert limited.total_steps == 5 and "ends when" not in describe(facts_of(limited))
