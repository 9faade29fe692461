"""What a search leaves: all of it, or with the time up what is needed first."""

import time
from pathlib import Path

import optuna
import pytest

from smart_tuner.monitors.results import write_results
from support.studies import random_study


@pytest.fixture(scope="module")
def study() -> optuna.Study:
    return random_study(30)


def written(study: optuna.Study, folder: Path, *, pictures_until: float) -> set[str]:
    write_results(study, folder, lambda best: best.params, pictures_until=pictures_until)
    return {path.name for path in folder.iterdir()}


def test_no_other_picture_is_begun_once_the_time_is_up(study: optuna.Study, tmp_path: Path) -> None:
    found = written(study, tmp_path, pictures_until=time.monotonic())
    assert found == {"trials.csv", "best_hparams.yaml", "history.png"}


def test_with_time_all_pictures_are_drawn(study: optuna.Study, tmp_path: Path) -> None:
    pictures = {"history.png", "slices.png", "parallel.png", "importances.png"}
    assert written(study, tmp_path, pictures_until=float("inf")) == pictures | {"trials.csv", "best_hparams.yaml"}
