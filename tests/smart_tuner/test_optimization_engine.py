"""A whole search: with a stand-in for train.py, so that a trial takes a tenth of a second; the rest is real."""

import json
import os
import re
import signal
import sqlite3
import threading
import time
from math import isfinite
from pathlib import Path

import optuna
import pytest
import yaml
from optuna.trial import TrialState

import smart_tuner.optimization_engine as engine
from common.errors import DataError, GaveUp, UserError
from hparams import resolve_hparams
from run_directory.paths import exclusive_lock
from smart_tuner import storage as storages
from smart_tuner import study as studies
from smart_tuner import trainer_wrapper
from smart_tuner.importances import importances
from smart_tuner.objective import WORST_VALUE
from smart_tuner.search_space import Choices, Range
from smart_tuner.settings import Layers, SearchOptions
from smart_tuner.trainer_wrapper import TrainerWrapper
from smart_tuner.trial_queue import counting, origins
from smart_tuner.worker import drop_weights
from support.searches import loaded, table
from training.options import Options


def test_a_search_leaves_scores_pictures_and_the_best_parameters(tune, tmp_path: Path) -> None:
    assert tune(n_trials=6) == 0
    study = tmp_path / "output" / "study"
    values = [float(row["value"]) for row in table(tmp_path / "output")]
    assert len(set(values)) == 6 and all(map(isfinite, values))
    assert {path.name for path in study.glob("*.png")} == {"history.png", "slices.png", "parallel.png"}
    best = min(table(tmp_path / "output"), key=lambda row: float(row["value"]))
    written = yaml.safe_load((study / "best_hparams.yaml").read_text())
    assert written["learning_rate"] == float(best["learning_rate"]) and written["epochs"] >= 1
    resolve_hparams(hparams_file=study / "best_hparams.yaml")  # is one


def test_the_first_trial_is_what_the_settings_say(tune, tmp_path: Path) -> None:
    assert tune(n_trials=1) == 0
    row = table(tmp_path / "output")[0]
    assert (float(row["learning_rate"]), row["batch_size"], row["warmup_steps"]) == (1e-3, "48", "2000")


def test_the_same_command_adds_nothing_and_a_larger_n_trials_the_rest(tune, tmp_path: Path) -> None:
    output = tmp_path / "output"
    tune(n_trials=2)
    first = table(output)
    tune(n_trials=2)
    assert table(output) == first
    tune(n_trials=4)
    assert table(output)[:2] == first and len(table(output)) == 4


@pytest.mark.slow
def test_a_resumed_search_draws_what_an_uninterrupted_one_would(tune, tmp_path: Path) -> None:
    output = tmp_path / "output"
    for n in (2, 7):  # across the first five, which are drawn at random, and those that are learnt
        tune(n_trials=n)
    resumed = [trial.params for trial in loaded(output).trials]
    tune(n_trials=7, is_new=True)
    assert [trial.params for trial in loaded(output).trials] == resumed
    assert len({str(params) for params in resumed}) == 7


def test_a_new_study_moves_the_old_one_aside(tune, tmp_path: Path) -> None:
    tune(n_trials=2)
    tune(n_trials=1, is_new=True)
    assert len(table(tmp_path / "output")) == 1
    old = next((tmp_path / "output" / "previous").glob("*/study/trials.csv"))
    assert len(old.read_text().splitlines()) == 3


def test_other_settings_are_refused_with_what_differs(tune) -> None:
    tune(n_trials=1)
    with pytest.raises(UserError, match="weight_decay: 1e-06 there, 0.1 here") as refused:
        tune(n_trials=2, hparams="weight_decay=0.1")
    assert "--new-study" in str(refused.value)
    with pytest.raises(UserError, match="budget epochs"):
        tune(n_trials=2, max_steps=4)


def test_trials_that_die_have_the_worst_value_and_don_t_end_the_search(tune, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("STAND_IN", "all_but_0")
    assert tune(n_trials=3) == 0
    rows = table(tmp_path / "output")
    assert [float(row["value"]) for row in rows][1:] == [WORST_VALUE] * 2
    assert rows[1]["ending"] == "died" and rows[1]["error"] == "RuntimeError: this trial was made to die"
    assert [trial.constraints["failed"] for trial in loaded(tmp_path / "output").trials] == [-1.0, 1.0, 1.0]


def test_a_trial_killed_from_outside_does_not_end_the_search(tune, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("STAND_IN", "killed")
    assert tune(n_trials=2) == 0
    assert [row["ending"] for row in table(tmp_path / "output")] == ["finished"] * 2


def test_every_trial_failing_is_exit_code_4_with_the_reason(tune, monkeypatch) -> None:
    monkeypatch.setenv("STAND_IN", "die")
    with pytest.raises(GaveUp, match="all 2 trials failed") as gave_up:
        tune(n_trials=2)
    assert gave_up.value.exit_code == 4 and "this trial was made to die" in str(gave_up.value)


def test_a_trial_without_finite_gradients_is_ended_as_diverged(tune, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("STAND_IN", "nan")
    with pytest.raises(GaveUp, match="diverged"):
        tune(n_trials=1)


def test_a_data_error_comes_once_and_before_any_trial(tune, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        engine.optimize(
            Layers(overrides=f"training_files={tmp_path}/none.txt"),
            Options(output=tmp_path / "output", logs=tmp_path / "logs"),
            SearchOptions(),
            repeated=(),
        )
    assert not list((tmp_path / "output").glob("study/trial_*"))


@pytest.mark.slow
def test_time_being_up_ends_the_trial_saved_and_the_same_command_goes_on_with_it(tune, tmp_path, monkeypatch) -> None:
    output = tmp_path / "output"
    monkeypatch.setenv("STAND_IN", "hang")
    assert tune(n_trials=1, timeout_s=6) == 0
    before = loaded(output).trials
    assert [trial.state for trial in before] == [TrialState.FAIL, TrialState.WAITING]
    monkeypatch.setenv("STAND_IN", "")
    assert tune(n_trials=1) == 0
    done = loaded(output).trials
    assert done[1].state == TrialState.COMPLETE and done[1].params == before[0].params
    assert (output / "study/trial_00000/launches").read_text() == "xx", "it went on in its own directory"
    assert len(table(output)) == 1


def test_sigterm_ends_the_trials_and_the_exit_code_says_so(tune, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("STAND_IN", "hang")
    begun = tmp_path / "output/study/trial_00000/launches"

    def interrupt() -> None:
        deadline = time.monotonic() + 60
        while not begun.exists() and time.monotonic() < deadline:
            threading.Event().wait(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=interrupt)
    thread.start()
    assert tune(n_trials=2) == 143
    thread.join()
    assert counting(origins(loaded(tmp_path / "output"))[0]).state == TrialState.WAITING


def test_a_trial_that_a_killed_search_left_running_is_taken_up_at_once(tune, tmp_path: Path) -> None:
    output = tmp_path / "output"
    tune(n_trials=1)
    study = loaded(output)
    lost = study.ask()
    lost.set_user_attr("worker", study.trials[0].user_attrs["worker"])
    tune(n_trials=2)
    trials = loaded(output).trials
    assert [trial.state.name for trial in trials] == ["COMPLETE", "FAIL", "COMPLETE"]
    assert trials[2].user_attrs["origin"] == 1 and len(table(output)) == 2


def test_two_at_a_time_make_as_many_as_asked_for(tune, tmp_path: Path) -> None:
    assert tune(n_trials=5, n_jobs=2) == 0
    assert sorted(int(row["trial"]) for row in table(tmp_path / "output")) == list(range(5))


def test_only_the_best_trial_keeps_its_weights(tune, tmp_path: Path) -> None:
    tune(n_trials=4)
    kept = [path.parent.parent.name for path in (tmp_path / "output/study").glob("*/checkpoints/*")]
    best = min(table(tmp_path / "output"), key=lambda row: float(row["value"]))
    assert kept == [f"trial_{int(best['trial']):05d}"]


def test_another_search_in_the_same_directory_is_refused(tune, tmp_path: Path) -> None:
    is_refused = pytest.raises(UserError, match="at work in it; --n-jobs runs more trials")
    with exclusive_lock(tmp_path / "output", what_next=""), is_refused:
        tune(n_trials=1)


@pytest.mark.slow
def test_a_storage_of_one_s_own_holds_studies_by_the_run_and_numbers_new_ones(tune, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/shared.db"
    tune(n_trials=2, storage=url)
    tune(n_trials=1, storage=url, is_new=True)
    tune(n_trials=2, storage=url)  # goes on with the newest
    names = sorted(optuna.get_all_study_names(url))
    assert names == [f"{tmp_path}/output", f"{tmp_path}/output #2"]
    assert [len(optuna.load_study(study_name=name, storage=url).trials) for name in names] == [2, 2]
    assert not (tmp_path / "output/study/optuna.db").exists()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense", "is no database URL"),
        ("postgres://anna:secret@127.0.0.1/db", r"cannot open it: no such kind .*; write postgresql://$"),
        ("redis://anna:secret@host/0", "write postgresql:// or mysql:// or mariadb:// or sqlite://"),
        ("sqlite+aiosqlite:///a.db", "its driver is an asynchronous one, and the search needs another; write sqlite://"),
        ("sqlite:///:memory:", "a database in memory is gone with the command; name a file"),
        ("sqlite://", "a database in memory is gone with the command; name a file"),
        ("sqlite:////no/such/folder/study.db", "there is no folder /no/such/folder; make it, or name another"),
        ("oracle+oracledb://anna:secret@host/db", "its driver is missing; pip install oracledb"),
        ("mysql+mysqlconnector://anna:secret@host/db", "missing; pip install mysql-connector-python$"),
        ("mariadb+mariadbconnector://anna:secret@host/db", "its driver is missing; pip install mariadb$"),
        ("postgresql+nodriver://anna:secret@host/db", "cannot open it|driver"),
    ],
)
def test_a_storage_that_can_t_be_opened_is_refused_without_its_password(tmp_path, url: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        storages.open_storage(url, tmp_path)
    assert "secret" not in str(refused.value)


def test_the_address_of_a_storage_is_looked_at_before_the_corpus_is_read(tune, monkeypatch) -> None:
    monkeypatch.setattr(engine, "make_plan", lambda *_: pytest.fail("it reads the corpus"))
    with pytest.raises(UserError, match="its driver is missing; pip install oracledb"):
        tune(n_trials=1, storage="oracle+oracledb://anna:secret@host/db")


def test_a_file_that_is_no_study_is_refused(tmp_path: Path) -> None:
    (tmp_path / "optuna.db").write_text("not a database, but long enough to be looked at" * 40)
    with pytest.raises(UserError, match="--new-study moves it aside"):
        storages.open_storage(None, tmp_path)


def test_the_default_database_is_in_write_ahead_mode(tmp_path: Path) -> None:
    storages.open_storage(None, tmp_path)
    connection = sqlite3.connect(tmp_path / "optuna.db")
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_trials_without_attention_are_best_only_where_no_other_lived() -> None:
    study = optuna.create_study()
    for value, attention, failed in ((0.1, 0.0, True), (0.2, 0.1, False), (0.3, -0.5, False)):
        trial = study.ask()
        trial.set_user_attr("failed", failed)
        trial.set_constraint("attention", attention)
        study.tell(trial, value)
    best = studies.best_trial(study)
    assert best is not None and best.value == 0.3


def test_distributions_are_of_the_kind_that_the_range_says() -> None:
    logarithmic = optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True)
    assert studies.distribution(Range(1e-4, 1e-2, "log")) == logarithmic
    assert studies.distribution(Range(1, 5, "integer")) == optuna.distributions.IntDistribution(1, 5)
    assert studies.distribution(Choices((8, 16))) == optuna.distributions.CategoricalDistribution((8, 16))


def test_a_write_that_fails_for_a_while_is_tried_again() -> None:
    failures = [optuna.exceptions.StorageInternalError("locked")] * 2
    waits: list[float] = []

    def write() -> str:
        if failures:
            raise failures.pop()
        return "written"

    assert storages.retry_storage(write, waits.append) == "written" and waits == [2.0, 4.0]
    failures += [optuna.exceptions.StorageInternalError("gone")] * 99
    with pytest.raises(GaveUp, match="can't be used: gone. Once it can, the same command goes on"):
        storages.retry_storage(write, waits.append)
    assert 500 < sum(waits[2:]) < 600
    with pytest.raises(GaveUp):
        storages.retry_storage(write, lambda _: pytest.fail("it waits"), is_ending=lambda: True)


def test_weights_that_are_dropped_go_with_what_was_set_aside(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / "quarantine").mkdir(parents=True)
    (tmp_path / "checkpoints" / "step_00000001.pt").write_bytes(b"")
    drop_weights(tmp_path)
    drop_weights(tmp_path)  # there is none any more
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_search_leaves_a_planted_bad_region_and_tells_what_does_not_matter(tune, tmp_path: Path) -> None:
    """Rates over 1e-2 have no finite gradient: a third of the range, so chance would draw 5 of 15 there. Of all that
    is searched only the rate matters to the stand-in.
    """
    file = tmp_path / "wide_rates.yaml"
    file.write_text("search:\n  learning_rate: {low: 1.0e-4, high: 1.0e-1, scale: log}\n")
    assert tune(file=file, n_trials=36, n_jobs=3) == 0
    done = studies.finished(loaded(tmp_path / "output"))
    rates = [trial.params["learning_rate"] for trial in done]
    assert len(rates) == 36
    assert any(rate > 1e-2 for rate in rates[:12]) and sum(rate > 1e-2 for rate in rates[-15:]) <= 1
    found = {one.name: one for one in importances(done)}
    inert = [one.share for one in found.values() if one.name != "learning_rate"]
    # three workers finish in an order of their own, so the draws differ from run to run
    assert len(inert) >= 6 and found["learning_rate"].share > max(0.5, 3 * max(inert)), found
    assert max(inert) < 0.2, found


# -- within the time given --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_budget_nobody_set_is_planned_from_the_first_trials_speed_and_said(tune, tmp_path, capsys) -> None:
    assert tune(n_trials=2, max_steps=None, timeout_s=60) == 0
    said = capsys.readouterr().err
    assert re.search(r"a validation; 0m\d+s left for 2 trials; each gets [\d.]+ of 300 epochs", said), said
    assert said.index("measured: ") < said.index("trial_00000 finished")
    planned = loaded(tmp_path / "output").user_attrs["budget"]
    assert 1 < planned["epochs"] < 300
    commands = [json.loads(path.read_text()) for path in sorted((tmp_path / "output").glob("study/*/command.json"))]
    steps = [int(command[command.index("--max-steps") + 1]) for command in commands]
    assert len(steps) == 2 and max(steps) < 100
    tune(n_trials=3, max_steps=None, timeout_s=600)
    assert loaded(tmp_path / "output").user_attrs["budget"] == planned, "values compare only at equal budgets"
    assert "measured: " not in capsys.readouterr().err


def test_a_budget_of_ones_own_is_left_alone(tune, tmp_path, capsys) -> None:
    assert tune(n_trials=1, max_steps=6, timeout_s=60) == 0
    assert "measured: " not in capsys.readouterr().err
    assert loaded(tmp_path / "output").user_attrs["budget"]["epochs"] == 6.0


def test_after_a_shortened_budget_all_epochs_that_were_meant_are_written(tune, tmp_path) -> None:
    tune(n_trials=2, max_steps=None, timeout_s=60)
    written = yaml.safe_load((tmp_path / "output/study/best_hparams.yaml").read_text())
    assert written["epochs"] == 300


def test_a_trial_that_ignores_the_end_is_killed_soon_after_it(tune, monkeypatch) -> None:
    monkeypatch.setattr(trainer_wrapper, "LATE_GRACE_S", 0.5)
    monkeypatch.setenv("STAND_IN", "deaf")
    began = time.monotonic()
    assert tune(n_trials=1, timeout_s=3) == 0
    assert time.monotonic() - began < 3 + 10


# -- what goes wrong ---------------------------------------------------------------------------------------------------


def test_a_trial_killed_for_memory_has_the_worst_value_and_says_what_to_do(tune, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("STAND_IN", "memory")
    with pytest.raises(GaveUp, match="memory has run out: fewer --n-jobs, or a smaller batch_size"):
        tune(n_trials=1)
    assert table(tmp_path / "output")[0]["exit_code"] == "-9"


def test_a_trial_that_hangs_is_ended_and_the_search_goes_on(tune, tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(TrainerWrapper.__init__.__kwdefaults__, "stalled_s", 0.5)
    monkeypatch.setenv("STAND_IN", "hang")
    with pytest.raises(GaveUp, match="trial_00001: stalled: no record for"):
        tune(n_trials=2)


@pytest.mark.slow
def test_a_database_that_is_locked_for_a_while_costs_no_result(tune, tmp_path, monkeypatch, capsys) -> None:
    """Longer than SQLite itself waits: trials are told once it is free again."""
    monkeypatch.setattr(storages, "LOCK_WAIT_S", 0.2)
    monkeypatch.setenv("STAND_IN", "slow")
    begun = tmp_path / "output/study/trial_00000/metrics.jsonl"

    def lock() -> None:
        deadline = time.monotonic() + 60
        while not begun.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        connection = sqlite3.connect(tmp_path / "output/study/optuna.db", timeout=30, isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        time.sleep(3)
        connection.execute("ROLLBACK")
        connection.close()

    thread = threading.Thread(target=lock)
    thread.start()
    assert tune(n_trials=2) == 0
    thread.join()
    assert [row["ending"] for row in table(tmp_path / "output")] == ["finished"] * 2
    assert "database can't be used (database is locked); trying again" in capsys.readouterr().err


def test_a_full_disk_is_one_message(tune, tmp_path, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(trainer_wrapper, "write_atomic", refuse)
    with pytest.raises(UserError, match=r"cannot write to .*/study \(No space left on device\); free space there"):
        tune(n_trials=1)


# -- what comes of it --------------------------------------------------------------------------------------------------


def test_the_wide_space_is_searched_where_it_is_asked_for(tune, tmp_path) -> None:
    tune(n_trials=1, is_wide=True)
    row = table(tmp_path / "output")[0]
    assert {"drop_frame_rate", "n_frames_per_step", "ema_decay"} <= set(row)
    with pytest.raises(UserError, match="search drop_frame_rate"):
        tune(n_trials=2)
