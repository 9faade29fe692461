"""Mixed precision: the type, the loss scale, its cuts, its floor, and its way through a checkpoint."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from common.errors import UserError
from hparams import HParams, create_hparams
from run_directory.records import StepRecord
from support.runs import assert_same_run, poisoned, resumed, trained, trainer_of, weights_of
from training.mixed_precision import GROWTH_INTERVAL, Precision, bf16_hint, half_type
from training.trainer import Limits

Tiny = Callable[..., HParams]
CPU = torch.device("cpu")


def precision(overrides: str) -> Precision:
    return Precision(create_hparams(overrides), CPU)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("", None),
        ("amp_dtype=fp16", None),
        ("fp16_run=True", torch.bfloat16),
        ("fp16_run=True,amp_dtype=bf16", torch.bfloat16),
        ("fp16_run=True,amp_dtype=fp16", torch.float16),
    ],
)
def test_the_type_follows_fp16_run_and_amp_dtype(settings: str, expected: torch.dtype | None) -> None:
    assert half_type(create_hparams(settings), CPU) == expected
    with precision(settings).autocast():
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (expected or torch.float32)


def test_auto_is_fp16_where_the_device_lacks_bf16_and_bf16_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "an old GPU")
    cuda = torch.device("cuda")
    assert half_type(create_hparams("fp16_run=True"), cuda) == torch.float16
    with pytest.raises(UserError, match="amp_dtype=bf16, but an old GPU computes no bf16; set amp_dtype=fp16 or auto"):
        half_type(create_hparams("fp16_run=True,amp_dtype=bf16"), cuda)


@pytest.mark.parametrize("can_multiply", [True, False])
def test_bf16_is_proposed_only_where_it_is_faster_and_not_in_use(
    can_multiply: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.mixed_precision.has_bf16_products", lambda: can_multiply)
    proposed = bf16_hint(create_hparams(""), CPU)
    assert ("fp16_run=True" in (proposed or "")) == can_multiply
    assert bf16_hint(create_hparams("fp16_run=True"), CPU) is None
    assert bf16_hint(create_hparams(""), torch.device("cuda")) is None


@pytest.mark.parametrize("settings", ["", "fp16_run=True", "fp16_run=True,amp_dtype=bf16"])
def test_only_fp16_scales_the_loss(settings: str) -> None:
    plain = precision(settings)
    assert plain.scaler is None and plain.after_step(1) is None and plain.state() == {}
    assert plain.scaled(torch.tensor(2.0)).item() == 2.0


def test_the_scale_starts_at_loss_scale_init() -> None:
    scaled = precision("fp16_run=True,amp_dtype=fp16,loss_scale_init=64")
    assert scaled.scaled(torch.tensor(2.0)).item() == 128.0


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["plain", "fast"])
def test_a_small_model_learns_in_fp16_on_a_cpu(tiny: Tiny, tmp_path: Path, backend: str) -> None:
    settings = f"learning_rate=0.01,validate_interval=100000,decoder_backend={backend}"
    full = trained(tiny(settings), tmp_path / "full", 30)
    half = trained(tiny(f"{settings},fp16_run=True,amp_dtype=fp16"), tmp_path / "half", 30)
    assert half.losses != full.losses
    # eleven bits of mantissa: close, not equal
    assert half.losses[0] == pytest.approx(full.losses[0], rel=0.02)
    assert half.losses[-1] < 0.8 * half.losses[0] and not half.events("skipped")


def test_gradients_are_clipped_as_they_are_without_the_scale(tiny: Tiny, tmp_path: Path) -> None:
    norms = [
        trained(tiny(f"fp16_run=True,amp_dtype=fp16,loss_scale_init={scale}"), tmp_path / scale, 1).records[0].grad_norm
        for scale in ("1", "4096")
    ]
    assert norms[1] == pytest.approx(norms[0], rel=0.05)


def test_an_overflow_skips_the_step_and_cuts_the_scale_by_the_factor(tiny: Tiny, tmp_path: Path) -> None:
    hp = tiny("fp16_run=True,amp_dtype=fp16,loss_scale_init=1e38,loss_scale_factor=1e9")
    trainer = trainer_of(hp, tmp_path, limits=Limits(max_steps=6))
    before = weights_of(trainer)
    trainer.on_step = lambda t: before.update(weights_of(t)) if t.progress.step == 1 else None
    trainer.fit()
    cuts = trainer.events("loss_scale_cut")
    assert cuts[0].step == 1 and cuts[0].data["scale"] == pytest.approx(1e29)
    (record,) = (r for r in trainer.records if isinstance(r, StepRecord))
    assert len(cuts) == record.skipped < 6 and not trainer.events("skipped")  # told once
    assert trainer.train_step.precision.scaler is not None
    assert trainer.train_step.precision.scaler.get_scale() == pytest.approx(1e38 / 1e9 ** len(cuts))


def test_the_scale_never_falls_under_one_and_says_so(tiny: Tiny, tmp_path: Path) -> None:
    hp = tiny("batch_size=5,fp16_run=True,amp_dtype=fp16,loss_scale_init=1.5")
    trainer = trainer_of(hp, tmp_path, corpus=poisoned(hp, 0), limits=Limits(max_steps=3))
    trainer.fit()
    assert trainer.train_step.precision.scaler is not None and trainer.train_step.precision.scaler.get_scale() == 1.0
    events = trainer.events("loss_scale_floor")
    assert [e.step for e in events] == [1, 2, 3] and "set amp_dtype=bf16" in events[0].message


def test_without_dynamic_scaling_the_scale_stays(tiny: Tiny, tmp_path: Path) -> None:
    hp = tiny("batch_size=5,fp16_run=True,amp_dtype=fp16,dynamic_loss_scaling=False,loss_scale_init=256")
    trainer = trainer_of(hp, tmp_path, corpus=poisoned(hp, 0), limits=Limits(max_steps=3))
    trainer.fit()
    assert trainer.train_step.precision.scaler is not None and trainer.train_step.precision.scaler.get_scale() == 256.0
    assert not trainer.events("loss_scale_cut") and len(trainer.events("skipped")) == 3


def test_the_scale_grows_by_the_factor_after_good_steps() -> None:
    scaled = precision("fp16_run=True,amp_dtype=fp16,loss_scale_init=8,loss_scale_factor=4")
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight])
    for step in range(GROWTH_INTERVAL):
        optimizer.zero_grad()
        scaled.scaled(weight.sum()).backward()
        scaled.unscale(optimizer)
        assert scaled.after_step(step) is None
    assert scaled.scaler is not None and scaled.scaler.get_scale() == 32.0


def test_a_resumed_fp16_run_is_bit_exactly_the_straight_one(tiny: Tiny, tmp_path: Path) -> None:
    hp = tiny("fp16_run=True,amp_dtype=fp16,loss_scale_init=1e38,loss_scale_factor=1e9")
    straight = trained(hp, tmp_path / "straight", 7)
    first = trainer_of(hp, tmp_path / "cut", limits=Limits(max_steps=7))
    first.interrupt_at = 3
    first.fit()
    second = resumed(hp, tmp_path / "cut", 7)
    assert_same_run(straight, second)
    state = second.state().training
    assert state is not None and math.isfinite(state["loss_scale"]["scale"]) and state["loss_scale"]["scale"] < 1e38
