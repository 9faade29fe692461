"""What all trials of a search begin with: the same weights, whatever becomes of the run that they are from."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

import smart_tuner.optimization_engine as engine
from common.errors import TimeIsUp, UserError
from data_utils import load_corpus
from hparams import HParams
from smart_tuner import study as studies
from smart_tuner.trial_queue import origin_of
from support.searches import loaded
from support.voices import save_voice

Tiny = Callable[..., HParams]


def begun_with(output: Path, number: int) -> list[str]:
    command = json.loads((output / f"study/trial_{number:05d}/command.json").read_text())
    return command[command.index("-c") : command.index("-c") + 3]


def test_trials_begin_with_the_file_that_a_run_named_when_the_search_began(tune, tiny: Tiny, tmp_path: Path) -> None:
    corpus, voice = load_corpus(tiny()), tmp_path / "voice"
    first = save_voice(tiny(), corpus, voice, step=3)
    assert tune(n_trials=1, begin=voice, warm_start=True) == 0
    assert begun_with(tmp_path / "output", 0) == ["-c", str(first), "--warm-start"]
    best = (tmp_path / "output/study/best_hparams.yaml").read_text()
    assert f"# Begin as the trials did: -c {first} --warm-start\n" in best
    save_voice(tiny(), corpus, voice, step=7, seed=2)
    with pytest.raises(UserError, match=r"trials begin with: a checkpoint of SHA-256 \w+ there, .* \w+ here"):
        tune(n_trials=2, begin=voice, warm_start=True)
    assert tune(n_trials=2, begin=first, warm_start=True) == 0
    assert begun_with(tmp_path / "output", 1) == ["-c", str(first), "--warm-start"]


def test_a_checkpoint_of_ours_that_trials_would_go_on_from_is_refused(tune, tiny: Tiny, tmp_path: Path) -> None:
    voice = save_voice(tiny(), load_corpus(tiny()), tmp_path / "voice")
    with pytest.raises(UserError, match="without --warm-start would go on with its steps, settings and optimizer"):
        tune(n_trials=1, begin=voice)
    assert not (tmp_path / "output/study/trial_00000").exists()


def test_a_base_voice_that_time_is_too_short_for_ends_the_launch_in_order(
    tune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def too_late(*_, **__):
        raise TimeIsUp

    monkeypatch.setattr(engine, "with_base_voice", too_late)
    assert tune(n_trials=1, timeout_s=60, is_new=True) == 0
    said = "time is up before the base voice is made; the same command without --new-study goes on with it"
    assert said in capsys.readouterr().err


def test_a_run_of_an_earlier_best_makes_way_for_the_best_of_now(
    tune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stand-in for training writes no settings, so these are written here."""
    trained: list[dict[str, object]] = []

    def train(settings, options) -> int:
        run = tmp_path / "output"
        trained.append({"was_empty": not (run / "checkpoints").exists(), "max_steps": options.max_steps})
        (run / "checkpoints").mkdir(exist_ok=True)
        (run / "checkpoints/step_00000006.pt").write_text("weights")
        (run / "hparams.yaml").write_text(settings.hparams.to_yaml())
        return 0

    monkeypatch.setattr(engine, "train", train)
    file = tmp_path / "poor.yaml"
    file.write_text("learning_rate: 2.5e-4\n")  # another trial is soon better
    tune = partial(tune, file=file)
    tune(n_trials=1, train_best=True)
    tune(n_trials=1, train_best=True)
    assert [run["was_empty"] for run in trained] == [True, False], "the same best goes on"
    n = next(n for n in range(2, 20) if tune(n_trials=n) == 0 and best_number(tmp_path / "output") != 0)
    tune(n_trials=n, train_best=True)
    assert trained[-1]["was_empty"] and trained[-1]["max_steps"]
    (aside,) = (tmp_path / "output/previous").iterdir()
    assert (aside / "checkpoints/step_00000006.pt").exists()
    shutil.rmtree(aside)
    tune(n_trials=n, train_best=True)
    assert not aside.exists(), "nothing is moved twice"


def best_number(output: Path) -> int:
    best = studies.best_trial(loaded(output))
    assert best is not None
    return origin_of(best)
