"""Averaged weights: what they are, who speaks with them, and that a run goes on from both kinds to the bit."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from checkpointing import checkpoint_file
from checkpointing import directory as checkpoint_dir
from hparams import HParams
from speech.voice import Speaker
from support.runs import assert_same, assert_same_run, poisoned, resumed, trained, trainer_of, weights_of
from training.trainer import Limits
from training.weight_averaging import AveragedWeights

Tiny = Callable[..., HParams]
TAKEN, NOT_TAKEN = torch.tensor(True), torch.tensor(False)


def test_the_average_follows_its_formula() -> None:
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(0.0)
    average = AveragedWeights(model, decay=0.5)
    expected = 0.0
    for n, value in enumerate((8.0, 4.0, -2.0), 1):
        model.weight.data.fill_(value)
        average.after_step(TAKEN)
        decay = min(0.5, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * value
    assert average.weights()["weight"].item() == pytest.approx(expected, rel=1e-5)  # fp32


def test_a_step_that_was_not_taken_does_not_count() -> None:
    model = nn.Linear(2, 2)
    average = AveragedWeights(model, decay=0.9)
    before = {name: t.clone() for name, t in average.weights().items()}
    model.weight.data.add_(1.0)
    average.after_step(NOT_TAKEN)
    assert_same(before["weight"], average.weights()["weight"])
    assert average.n_steps == 0


def test_the_model_has_its_own_weights_back_after_speaking_with_the_average() -> None:
    model = nn.BatchNorm1d(3)
    average = AveragedWeights(model, decay=0.9)
    model.weight.data.mul_(3.0)
    model.running_mean.add_(0.1)
    own = {name: t.clone() for name, t in model.state_dict().items()}
    with pytest.raises(KeyError), average.in_place():
        assert torch.equal(model.weight, torch.ones(3)) and torch.equal(model.running_mean, torch.zeros(3))
        raise KeyError
    assert_same(own, dict(model.state_dict()))


def test_training_takes_the_same_way_with_an_average_and_without(tiny: Tiny, tmp_path: Path) -> None:
    speaking = "validation_attention_analysis=True,validate_interval=2"
    runs = [trained(tiny(f"{speaking},ema_decay={d}"), tmp_path / str(d), 5) for d in (0, 0.9)]
    assert_same(*map(weights_of, runs))
    assert runs[0].losses == runs[1].losses


def test_a_checkpoint_speaks_with_the_average(tiny: Tiny, tmp_path: Path) -> None:
    trainer = trained(tiny("ema_decay=0.9"), tmp_path, 4)
    speaker = Speaker.load(tmp_path)
    average = trainer.train_step.average
    assert average is not None
    for name, tensor in speaker.model.state_dict().items():
        assert_same(tensor, average.weights()[name], name)
    assert not torch.equal(speaker.model.embedding.weight, trainer.model.embedding.weight)


def test_validation_judges_the_average(tiny: Tiny, tmp_path: Path) -> None:
    plain, averaged = (trained(tiny(f"validate_interval=4,ema_decay={d}"), tmp_path / str(d), 4) for d in (0, 0.999))
    assert plain.progress.best_score != averaged.progress.best_score


@pytest.mark.parametrize("k", [1, 4])
def test_a_resumed_average_is_bit_exactly_that_of_the_straight_run(tiny: Tiny, tmp_path: Path, k: int) -> None:
    hp = tiny("ema_decay=0.9,validation_attention_analysis=True,validate_interval=3,iters_per_checkpoint=3")
    straight = trained(hp, tmp_path / "straight", 7)
    first = trainer_of(hp, tmp_path / "cut", limits=Limits(max_steps=7))
    first.interrupt_at = k
    first.fit()
    assert_same_run(resumed(hp, tmp_path / "cut", 7), straight)


@pytest.mark.slow
def test_an_average_may_begin_and_end_in_the_middle_of_a_run(tiny: Tiny, tmp_path: Path) -> None:
    trained(tiny(), tmp_path, 2)
    resumed(tiny("ema_decay=0.9"), tmp_path, 4)
    last = resumed(tiny(), tmp_path, 6)
    assert_same(weights_of(last), weights_of(trained(tiny(), tmp_path / "straight", 6)))
    saved = checkpoint_file.load(checkpoint_dir.newest_good(tmp_path / "checkpoints"))
    assert "average" not in saved.training
    assert_same(dict(saved.model), weights_of(last))


def test_a_skipped_step_leaves_the_average_finite_and_uncounted(tiny: Tiny, tmp_path: Path) -> None:
    hp = tiny("ema_decay=0.9")
    trainer = trained(hp, tmp_path, 3, corpus=poisoned(hp, 1))  # an epoch of three steps, one of them bad
    average = trainer.train_step.average
    assert average is not None and len(trainer.events("skipped")) == 1 and average.n_steps == 2
    assert all(bool(torch.isfinite(t).all()) for t in average.weights().values())
