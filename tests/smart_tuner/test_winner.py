"""What is written of the best trial: how long to train with its values."""

from pathlib import Path

import pytest
import yaml

from support.searches import loaded, table


@pytest.mark.parametrize(
    ("search", "is_written"),
    [("", True), ("search: {epochs: {low: 2, high: 6, scale: integer}}", False)],
    ids=["config.yaml's whole trainings", "a range of one's own, of samples of a training"],
)
def test_the_epochs_of_short_trials_are_not_those_of_the_training(
    tune, tmp_path: Path, search: str, is_written: bool
) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(f"learning_rate: 1e-3\n{search}\n")
    assert tune(n_trials=1, file=file) == 0
    written = yaml.safe_load((tmp_path / "output/study/best_hparams.yaml").read_text())
    assert ("epochs" in written) == is_written and "learning_rate" in written


def test_who_has_not_confirmed_the_best_is_told_how(tune, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "poor.yaml"
    file.write_text("learning_rate: 2.5e-4\n")  # another trial is soon better
    tune(n_trials=1, file=file)
    assert "--confirm" not in capsys.readouterr().err, "the best is the settings"
    while loaded(tmp_path / "output").best_trial.number == 0:
        tune(n_trials=len(table(tmp_path / "output")) + 2, file=file)
    assert "--confirm 2 trains it and the settings as they were anew" in capsys.readouterr().err
