"""The documented search commands, with real trials of two steps."""

import csv
import subprocess
from math import isfinite
from pathlib import Path

import pytest
import yaml

from support.commands import TINY, assert_refused, run, write_dataset

pytestmark = pytest.mark.spec

OPEN = ",".join(pair for pair in TINY.split(",") if not pair.startswith("batch_size"))
LIMITS = ("--max-steps", "2", "--hparams", OPEN)
SEARCH = ("-o", "output", "-l", "logs", "--optimize-hyperparams", "--n-trials", "2", "--optimization-timeout", "3600",
          "--train-best", *LIMITS)  # fmt: skip


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The documented command, two trials long, and what it said."""
    cwd = tmp_path_factory.mktemp("searched")
    write_dataset(cwd)
    done = run("train.py", *SEARCH, cwd=cwd, cache=cwd / "cache")
    assert done.returncode == 0, done.stderr
    return cwd, done


def test_a_search_by_words_hears_its_trial(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    search = ("-o", "output", "-l", "logs", "--optimize-hyperparams", "--n-trials", "1", "--score-words", *LIMITS)
    done = run("train.py", *search, cwd=tmp_path, cache=tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    (row,) = rows(tmp_path)
    assert 0.5 < float(row["misheard"]) <= 1.0 and float(row["value"]) > float(row["misheard"])


def rows(cwd: Path) -> list[dict[str, str]]:
    with (cwd / "output/study/trials.csv").open(newline="") as f:
        return list(csv.DictReader(f))


def test_the_documented_search_has_finite_different_scores_and_pictures(searched) -> None:
    cwd, _ = searched
    values = [float(row["value"]) for row in rows(cwd)]
    assert len(set(values)) == 2 and all(map(isfinite, values))
    assert list((cwd / "output/study").glob("*.png"))
    assert (cwd / "output/study/optuna.db").exists()


def test_each_trial_is_a_run_of_its_own_with_its_log(searched) -> None:
    cwd, _ = searched
    for number in range(2):
        trial = cwd / f"output/study/trial_{number:05d}"
        assert {"hparams.yaml", "metrics.jsonl", "run.json", "output.log"} <= {path.name for path in trial.iterdir()}
        assert (cwd / f"logs/trial_{number:05d}/train.log").exists()


def test_the_best_hyperparameters_are_trained_in_the_output_itself(searched) -> None:
    cwd, done = searched
    best = yaml.safe_load((cwd / "output/study/best_hparams.yaml").read_text())
    trained = yaml.safe_load((cwd / "output/hparams.yaml").read_text())
    assert {name: trained[name] for name in best} == best
    assert list((cwd / "output/checkpoints").glob("step_*.pt")) and "training with the best" in done.stderr


def test_the_same_command_adds_nothing(searched) -> None:
    cwd, _ = searched
    before = rows(cwd)
    done = run("train.py", *SEARCH, cwd=cwd, cache=cwd / "cache")
    assert done.returncode == 0, done.stderr
    assert rows(cwd) == before and "already finished" in done.stderr


def test_without_a_directory_the_search_has_one_of_its_own_and_time_may_be_up_at_once(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    done = run("train.py", "--optimize-hyperparams", "--optimization-timeout", "0.01", *LIMITS, cwd=tmp_path,
               cache=tmp_path / "cache")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "time is up before any trial has finished" in done.stderr
    assert list(tmp_path.glob("output/run-*/study/optuna.db"))


def test_the_extended_search_keeps_what_hparams_fix(tmp_path: Path) -> None:
    """The two longer commands in one, one trial long."""
    write_dataset(tmp_path)
    fixed = f"max_restart_attempts=5,emergency_restart_enabled=True,{OPEN}"
    done = run("train.py", "--optimize-hyperparams", "--n-trials", "1", "--optimization-timeout", "7200", "-o",
               "output/optimization", "-l", "logs/optimization", "--max-steps", "2", "--hparams", fixed, cwd=tmp_path,
               cache=tmp_path / "cache")  # fmt: skip
    assert done.returncode == 0, done.stderr
    trial = yaml.safe_load((tmp_path / "output/optimization/study/trial_00000/hparams.yaml").read_text())
    assert (trial["max_restart_attempts"], trial["emergency_restart_enabled"]) == (5, True)


def test_bad_data_is_exit_code_3_before_any_trial(tmp_path: Path) -> None:
    done = run("train.py", "-o", "output", "-l", "logs", "--optimize-hyperparams", "--hparams",
               "training_files=none.csv", cwd=tmp_path, cache=tmp_path / "cache")  # fmt: skip
    assert_refused(done, 3, "none.csv")
    assert not list(tmp_path.glob("output/study/trial_*"))


@pytest.mark.campaign
def test_a_trial_may_have_several_gpus_or_without_any_as_many_processes(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    words = ("-o", "output", "-l", "logs", "--optimize-hyperparams", "--n-trials", "1", *LIMITS)
    done = run("train.py", *words, "--gpus-per-trial", "2", cwd=tmp_path, cache=tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    trial = tmp_path / "output/study/trial_00000"
    assert "each shared by 2 processes" in (trial / "output.log").read_text()
    assert isfinite(float(rows(tmp_path)[0]["value"])) and list(trial.glob("checkpoints/*.pt"))
    assert "python multiproc.py --n_gpus 2 train.py" in done.stderr
    refused = run("train.py", *words, cwd=tmp_path, cache=tmp_path / "cache")
    assert_refused(refused, 2, "--gpus-per-trial: 2 there, nothing here")


def test_a_best_voice_is_not_trained_otherwise_than_it_was_found(tmp_path: Path) -> None:
    done = run("train.py", "--optimize-hyperparams", "--gpus-per-trial", "2", "--train-best", cwd=tmp_path,
               cache=tmp_path / "cache")  # fmt: skip
    assert_refused(done, 2, "--train-best trains in this process", "multiproc.py --n_gpus 2 train.py")
