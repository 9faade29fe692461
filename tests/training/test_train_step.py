"""Steps that the host looks at some at a time, as it does on a GPU, end as steps that it looks at one by one."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from common.errors import GaveUp
from hparams import HParams
from support.faults import (
    OFTEN,
    Hurt,
    large_gradient,
    nan_gradient,
    nan_loss,
    nan_moments,
    nan_statistics,
    once,
    sick,
)
from support.runs import Watched, assert_same, logs_are_closed, trainer_of  # noqa: F401 - a fixture
from training.train_step import TrainStep
from training.trainer import LOG_EVERY, Limits

Tiny = Callable[..., HParams]
STEPS = 28


def trained(hp: HParams, directory: Path, sync_every: int, hurt: Hurt | None = None) -> Watched:
    train_step = TrainStep if hurt is None else sick(hurt)
    trainer = trainer_of(hp, directory, limits=Limits(max_steps=STEPS), train_step=train_step)
    trainer.sync_every = sync_every
    trainer.fit()
    return trainer


def assert_same_end(a: Watched, b: Watched) -> None:
    assert_same(a.state().model, b.state().model)
    assert_same(a.state().training, b.state().training)
    assert a.losses == b.losses


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings", ["", "validate_interval=7,iters_per_checkpoint=4", "use_mmi=True,update_gaf_every_n_step=3"]
)
def test_looking_at_ten_steps_at_a_time_changes_no_bit(tiny: Tiny, tmp_path: Path, settings: str) -> None:
    one, ten = (trained(tiny(settings), tmp_path / str(n), n) for n in (1, 10))
    assert_same_end(one, ten)


@pytest.mark.parametrize(
    "fault", [nan_loss, *(pytest.param(fault, marks=pytest.mark.spec) for fault in (nan_gradient, large_gradient))]
)
def test_a_bad_step_is_not_taken_before_anybody_looks(tiny: Tiny, tmp_path: Path, fault: Callable[..., None]) -> None:
    one, ten = (trained(tiny(OFTEN), tmp_path / str(n), n, once(7, fault)) for n in (1, 10))
    assert [e.step for e in ten.events("skipped")] == [7] == [e.step for e in one.events("skipped")]
    assert ten.events("skipped")[0].data == one.events("skipped")[0].data  # the reason, and whose data it was
    assert_same_end(one, ten)


@pytest.mark.parametrize("fault", [nan_statistics, pytest.param(nan_moments, marks=pytest.mark.spec)])
def test_damage_is_gone_back_from_to_the_same_bits(tiny: Tiny, tmp_path: Path, fault: Callable[..., None]) -> None:
    straight = trained(tiny(OFTEN), tmp_path / "straight", 1)
    hurt = trained(tiny(OFTEN), tmp_path / "hurt", 10, once(7, fault))
    assert len(hurt.events("rollback")) == 1
    assert_same(straight.state().model, hurt.state().model)
    assert_same(straight.train_step.optimizer.state_dict(), hurt.train_step.optimizer.state_dict())


@pytest.mark.slow
def test_training_that_leads_nowhere_stops_with_the_diagnosis_of_its_onset(tiny: Tiny, tmp_path: Path) -> None:
    def from_step_8_on(train_step: object, step: int, losses: dict[str, torch.Tensor]) -> None:
        if step >= 8:
            losses["total"] = losses["total"] * float("nan")

    with pytest.raises(GaveUp, match=r"not finite .*since step 8(.|\n)*last good: .*step_00000005.pt"):
        trained(tiny(OFTEN), tmp_path, 10, from_step_8_on)


def test_a_checkpoint_knows_of_every_step_before_it(tiny: Tiny, tmp_path: Path) -> None:
    """Else a resumed run would judge its first steps by another scale."""
    trainer = trained(tiny("iters_per_checkpoint=4,epochs=100"), tmp_path, 10)
    assert trainer.faults.policy.state.n_losses == STEPS
    assert not trainer._pending


def test_on_a_gpu_the_host_looks_once_a_record_and_for_fp16_at_every_step(tiny: Tiny, tmp_path: Path) -> None:
    looks = {}
    for settings in ("", "fp16_run=True,amp_dtype=bf16", "fp16_run=True,amp_dtype=fp16"):
        trainer = trainer_of(tiny(settings), tmp_path / settings)
        looks[settings] = trainer.sync_interval(torch.device("cuda"))
        assert trainer.sync_every == trainer.sync_interval(torch.device("cpu")) == 1
    assert list(looks.values()) == [LOG_EVERY, LOG_EVERY, 1]
