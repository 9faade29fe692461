"""What a search has left."""

import csv
from pathlib import Path

import optuna


def table(output: Path) -> list[dict[str, str]]:
    with (output / "study" / "trials.csv").open(newline="") as f:
        return list(csv.DictReader(f))


def loaded(output: Path) -> optuna.Study:
    return optuna.load_study(study_name="study", storage=f"sqlite:///{output}/study/optuna.db")
