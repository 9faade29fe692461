"""`--confirm`: a best trial that is better with every other seed is told so; else the settings stay as they were."""

import argparse
import json
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import yaml

from common.errors import UserError
from smart_tuner import plan, settings, trainer_wrapper
from smart_tuner import storage as storages
from smart_tuner import study as studies
from smart_tuner.confirmation import Confirmation
from smart_tuner.study import CONFIRMATION, is_confirmed
from support.paths import REPOSITORY
from support.searches import loaded, table

SHARED = ("study", "storage", "plan", "search", "stop")  # by the machines of a search; but for their directories


@pytest.fixture
def search(tune, tmp_path: Path) -> Callable[..., int]:
    """Whose settings are not the best: the stand-in likes a rate of 1e-3."""
    file = tmp_path / "slow.yaml"
    file.write_text("learning_rate: 3.0e-3\n")
    return partial(tune, file=file)


def written(output: Path) -> tuple[dict, str]:
    text = (output / "study/best_hparams.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text), text


def trainings(output: Path) -> list[Path]:
    return sorted((output / "study").glob("confirm_*"))


def test_better_means_better_with_every_seed() -> None:
    assert is_confirmed({"of_best": [0.3, 0.4], "of_first": [0.5, 0.41]})
    assert not is_confirmed({"of_best": [0.3, 0.4], "of_first": [0.5, 0.35]})
    assert not is_confirmed({"of_best": [0.4], "of_first": [0.4]})


@pytest.mark.spec
def test_a_winner_that_stays_ahead_is_told_so(search, tmp_path: Path) -> None:
    output = tmp_path / "output"
    assert search(n_trials=8, confirm=3) == 0
    values, text = written(output)
    lowest = studies.lowest_trial(loaded(output))
    assert values["learning_rate"] == lowest.params["learning_rate"] and studies.origin_of(lowest) != 0
    assert "# Trained anew with other seeds it is better with each" in text and len(trainings(output)) == 6
    assert len(table(output)) == 8, "what confirms is no trial"
    assert "built-in" not in (output / "study/report.html").read_text(encoding="utf-8")
    assert not any((one / "checkpoints").exists() for one in trainings(output))


def test_a_lead_that_does_not_last_is_a_tie_and_the_settings_stay(search, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("STAND_IN", "luck")
    output = tmp_path / "output"
    assert search(n_trials=8, confirm=2, n_jobs=3) == 0
    study = loaded(output)
    assert studies.origin_of(studies.lowest_trial(study)) != 0 and studies.origin_of(studies.best_trial(study)) == 0
    values, text = written(output)
    assert values["learning_rate"] == studies.first_of(study).params["learning_rate"] and "# A tie: " in text
    assert "A tie: trained anew" in (output / "study/report.html").read_text(encoding="utf-8")


@pytest.mark.spec
def test_the_same_command_trains_only_what_is_not_confirmed_yet(search, tmp_path: Path) -> None:
    output = tmp_path / "output"
    search(n_trials=8)
    assert CONFIRMATION not in loaded(output).user_attrs
    search(n_trials=8, confirm=1)
    before = {one: (one / "launches").read_text() for one in trainings(output)}
    search(n_trials=8, confirm=2)
    assert len(before) == 2 and len(trainings(output)) == 4
    assert {one: (one / "launches").read_text() for one in before} == before
    assert len(loaded(output).user_attrs[CONFIRMATION]["of_best"]) == 2


@pytest.mark.spec
def test_time_that_is_up_leaves_the_confirmation_to_the_next_launch(
    search, tmp_path: Path, monkeypatch, capsys
) -> None:  # fmt: skip
    output = tmp_path / "output"
    search(n_trials=8)
    (output / "study/best_hparams.yaml").unlink()
    monkeypatch.setenv("STAND_IN", "deaf")
    assert search(n_trials=8, confirm=2, timeout_s=2) == 0
    assert CONFIRMATION not in loaded(output).user_attrs
    assert "time is up before the best is confirmed; the same command goes on" in capsys.readouterr().err
    assert written(output)[0]["learning_rate"] == studies.lowest_trial(loaded(output)).params["learning_rate"]
    monkeypatch.delenv("STAND_IN")
    assert search(n_trials=8, confirm=2) == 0
    assert "best" in loaded(output).user_attrs[CONFIRMATION]


@pytest.mark.spec
def test_what_was_found_is_written_before_it_is_confirmed(search, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(Confirmation, "run", lambda _: pytest.fail("killed") if not has_found() else None)

    def has_found() -> bool:
        return (tmp_path / "output/study/best_hparams.yaml").exists()

    assert search(n_trials=8, confirm=2) == 0 and has_found()


@pytest.mark.spec
def test_more_seeds_that_time_has_cut_short_are_told_of(search, tmp_path: Path, monkeypatch, capsys) -> None:
    search(n_trials=8, confirm=1)
    monkeypatch.setenv("STAND_IN", "deaf")
    capsys.readouterr()
    assert search(n_trials=8, confirm=2, timeout_s=2) == 0
    assert "time is up before the best is confirmed" in capsys.readouterr().err


def test_what_confirms_is_as_long_as_trials_that_an_earlier_launch_has_shortened(search, tmp_path: Path) -> None:
    output = tmp_path / "output"
    search(n_trials=8)
    study = loaded(output)
    study.set_user_attr("budget", {name: value / 2 for name, value in study.user_attrs["budget"].items()})
    search(n_trials=8, confirm=1)
    commands = [json.loads((one / "command.json").read_text()) for one in trainings(output)]
    assert [command[command.index("--max-steps") + 1] for command in commands] == ["3", "3"]


@pytest.mark.spec
def test_a_full_disk_while_confirming_is_one_message(search, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    search(n_trials=8)
    monkeypatch.setattr(trainer_wrapper, "write_atomic", refuse)
    with pytest.raises(UserError, match=r"cannot write to .*/study \(No space left on device\); free space there"):
        search(n_trials=8, confirm=1)


@pytest.mark.spec
def test_a_locked_database_costs_no_confirmation(search, tmp_path: Path, monkeypatch, capsys) -> None:
    """Longer than SQLite itself waits: what was trained is kept once it is free again."""
    monkeypatch.setattr(storages, "LOCK_WAIT_S", 0.2)
    search(n_trials=8)
    monkeypatch.setenv("STAND_IN", "slow")
    begun = tmp_path / "output/study"

    def lock() -> None:
        while not list(begun.glob("confirm_*/metrics.jsonl")):
            time.sleep(0.02)
        connection = sqlite3.connect(begun / "optuna.db", timeout=30, isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        time.sleep(2)
        connection.execute("ROLLBACK")
        connection.close()

    thread = threading.Thread(target=lock, daemon=True)
    thread.start()
    assert search(n_trials=8, confirm=1) == 0
    thread.join(timeout=30)
    assert "database can't be used (database is locked); trying again" in capsys.readouterr().err
    assert "best" in loaded(tmp_path / "output").user_attrs[CONFIRMATION]


@pytest.mark.spec
def test_machines_share_what_confirms_and_agree(search, tmp_path: Path, monkeypatch) -> None:
    given: list[tuple] = []
    monkeypatch.setattr(Confirmation, "run", lambda self: given.append(tuple(getattr(self, name) for name in SHARED)))
    search(n_trials=8, confirm=3)
    monkeypatch.undo()
    monkeypatch.setattr(plan, "TRAIN", REPOSITORY / "tests/support/fake_trainer.py")
    monkeypatch.setenv("STAND_IN", "slow")
    ((study, storage, planned, options, stop),) = given
    machines = [replace(planned, directory=tmp_path / name) for name in ("one", "two")]
    for machine in machines:
        machine.directory.mkdir()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda machine: Confirmation(study, storage, machine, options, stop).run(), machines))
    by_machine = [sorted(one.name for one in machine.directory.glob("confirm_*")) for machine in machines]
    assert all(by_machine) and len({*by_machine[0], *by_machine[1]}) == len(by_machine[0] + by_machine[1]) == 6
    found = loaded(tmp_path / "output").user_attrs[CONFIRMATION]
    assert len(found["of_best"]) == len(found["of_first"]) == 3 and is_confirmed(found)


@pytest.mark.spec
def test_fewer_seeds_than_before_change_nothing_and_no_weights_are_left(search, tmp_path: Path) -> None:
    output = tmp_path / "output"
    search(n_trials=8, confirm=2)
    known = loaded(output).user_attrs[CONFIRMATION]
    left = trainings(output)[0] / "checkpoints"  # of a training that another machine went on with
    left.mkdir()
    assert search(n_trials=8, confirm=1) == 0
    assert loaded(output).user_attrs[CONFIRMATION] == known and len(known["of_best"]) == 2
    assert not left.exists()


def test_from_ten_trials_on_the_best_is_confirmed_unless_the_command_says_otherwise() -> None:
    def parsed(*words: str) -> argparse.Namespace:
        p = argparse.ArgumentParser()
        settings.add_arguments(p)
        return p.parse_args(words)

    def confirmed(*words: str) -> int:
        options = settings.search_options(parsed("--optimize-hyperparams", *words))
        assert options is not None
        return options.confirm

    assert (confirmed(), confirmed("--n-trials", "9"), confirmed("--n-trials", "50")) == (2, 0, 2)
    with pytest.raises(UserError, match="--confirm needs --optimize-hyperparams"):
        settings.search_options(parsed("--confirm", "0"))
    assert (confirmed("--confirm", "0"), confirmed("--n-trials", "3", "--confirm", "4")) == (0, 4)


def test_where_nothing_beats_the_settings_nothing_is_trained(tune, tmp_path: Path) -> None:
    assert tune(n_trials=2, confirm=2, hparams="learning_rate=0.001") == 0
    assert not trainings(tmp_path / "output")
