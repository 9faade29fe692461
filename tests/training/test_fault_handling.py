"""Faults put into real runs: each ends trained, or stops with the right diagnosis, and resumes to the same bits."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from checkpointing import checkpoint_file
from checkpointing import directory as checkpoint_dir
from common.errors import GaveUp
from hparams import HParams
from recovery.ladder import BAD_DATA_STEPS
from run_directory.metrics_log import read_metrics
from run_directory.records import EvalRecord
from support.faults import (
    OFTEN,
    Hurt,
    Sick,
    diagnosis,
    inf_moments,
    inf_weight,
    large_gradient,
    nan_gradient,
    nan_loss,
    nan_moments,
    nan_statistics,
    nan_weight,
    once,
    sick,
)
from support.runs import (
    Watched,
    assert_same,
    assert_same_run,
    poisoned,
    resumed,
    trained,
    trainer_of,
    weights_of,
)
from training.trainer import Limits
from training.validation import Validated, Validator

Tiny = Callable[..., HParams]


def sick_run(hp: HParams, directory: Path, steps: int, hurt: Hurt) -> Watched:
    trainer = trainer_of(hp, directory, limits=Limits(max_steps=steps), train_step=sick(hurt))
    trainer.fit()
    return trainer


def while_data(first: int, last: int, do: Callable[[Sick, dict[str, Tensor]], None], learnt: set[int]) -> Hurt:
    """A fault in the optimiser steps first..last. `learnt`: where it came."""

    def hurt(train_step: Sick, step: int, losses: dict[str, Tensor]) -> None:
        if first <= step <= last and len(learnt) <= last - first:
            learnt.add(step)
            do(train_step, losses)

    return hurt


def kinds(trainer: Watched, *chosen: str) -> list[tuple[int, str]]:
    return [(e.step, e.kind) for kind in chosen for e in trainer.events(kind)]


# ---- one bad step


@pytest.mark.parametrize(
    ("fault", "kind"), [(nan_loss, "not_finite"), (nan_gradient, "not_finite"), (large_gradient, "explosion")]
)
def test_one_bad_step_is_skipped_and_nothing_of_it_stays(
    tiny: Tiny, tmp_path: Path, fault: Callable[..., None], kind: str
) -> None:
    trainer = trainer_of(tiny(), tmp_path, limits=Limits(max_steps=6), train_step=sick(once(4, fault)))
    states: list[Mapping[str, Any]] = []

    def keep(t: Watched) -> None:
        adam = t.train_step.optimizer.state_dict()["state"]
        moments = {f"{i}.{name}": value.clone() for i, state in adam.items() for name, value in state.items()}
        states.append({**weights_of(t), **moments})

    trainer.on_step = keep
    trainer.fit()
    (event,) = trainer.events("skipped")
    assert (event.step, event.data["reason"]) == (4, kind) and event.data["utterances"] == [*trainer.seen[3][0]]
    assert_same(states[2], states[3])
    assert trainer.progress.step == 6 and not trainer.events("rollback")


@pytest.mark.spec
def test_a_healthy_run_knows_nothing_of_all_this(tiny: Tiny, tmp_path: Path) -> None:
    trainer = trained(tiny(), tmp_path, 80)
    assert not kinds(trainer, "skipped", "tightened", "rollback", "out_of_memory")
    assert not (tmp_path / "recovery.json").exists() and not (tmp_path / "diagnosis.json").exists()


# ---- damage that lasts


@pytest.mark.parametrize(
    "damage",
    [
        *(nan_weight, nan_moments),
        *(pytest.param(damage, marks=pytest.mark.spec) for damage in (inf_weight, nan_statistics, inf_moments)),
    ],
    ids=lambda f: f.__name__,
)
def test_a_bit_that_flips_once_leaves_no_trace(tiny: Tiny, tmp_path: Path, damage: Callable[..., None]) -> None:
    """Found at the next bad loss or the next save; the run goes back and repeats the very same steps."""
    straight = trained(tiny(OFTEN), tmp_path / "straight", 14)
    trainer = sick_run(tiny(OFTEN), tmp_path / "sick", 14, once(8, damage))
    (event,) = trainer.events("rollback")
    assert event.step <= 10 and (event.data["to"], event.data["reason"]) == (5, "damaged")
    assert trainer.progress.rollbacks == 1 and trainer.progress.rollback_scale == 1.0
    assert_same(weights_of(straight), weights_of(trainer))
    assert_same(straight.train_step.state(), trainer.train_step.state())
    for path in checkpoint_dir.all_checkpoints(tmp_path / "sick/checkpoints"):
        assert checkpoint_dir.status_of(path).problem is None


def test_damage_before_the_first_checkpoint_goes_back_to_the_beginning(tiny: Tiny, tmp_path: Path) -> None:
    straight = trained(tiny("iters_per_checkpoint=6"), tmp_path / "straight", 8)
    trainer = sick_run(tiny("iters_per_checkpoint=6"), tmp_path / "sick", 8, once(3, nan_weight))
    assert [e.data["to"] for e in trainer.events("rollback")] == [0]
    assert_same(weights_of(straight), weights_of(trainer))


def test_damage_found_at_the_very_end_is_mended_too(tiny: Tiny, tmp_path: Path) -> None:
    straight = trained(tiny(OFTEN), tmp_path / "straight", 7)
    trainer = sick_run(tiny(OFTEN), tmp_path / "sick", 7, once(7, nan_weight))
    assert kinds(trainer, "rollback") == [(7, "rollback")]
    assert_same(weights_of(straight), weights_of(trainer))


# ---- data that leads astray


def astray(learnt: set[int]) -> Hurt:
    return while_data(8, 13, nan_loss, learnt)


def test_a_stretch_of_bad_steps_is_gone_back_from_and_its_data_passed_over(tiny: Tiny, tmp_path: Path) -> None:
    trainer = sick_run(tiny(OFTEN), tmp_path, 20, astray(set()))
    assert [step for step, _ in kinds(trainer, "skipped")] == [8, 9, 10, 11, 12, 13]
    assert kinds(trainer, "tightened", "rollback") == [(10, "tightened"), (13, "rollback")]
    (event,) = trainer.events("rollback")
    assert event.data["to"] == 5 and event.data["rate"] == 0.5 and event.data["reason"] == "not_finite"
    # three batches an epoch: steps 8 to 13 are epoch 2, batch 1, to epoch 4, batch 0
    assert event.data["data"] == ((2, 1), (4, 1)) and trainer.progress.skipped_ranges == [((2, 1), (4, 1))]
    repeated, after = trainer.seen[13:15], trainer.seen[15:]
    assert repeated == trainer.seen[5:7]
    straight = trained(tiny(OFTEN), tmp_path / "straight", 20)
    assert after[:7] == straight.seen[13:20]  # goes on behind the stretch
    assert trainer.train_step.rate == pytest.approx(0.5e-3)
    assert [r["step"] for r in read_metrics(tmp_path) if r["type"] == "step"] == [10, 20]


def test_checkpoints_from_before_the_bad_steps_are_not_pruned_by_those_among_them(tiny: Tiny, tmp_path: Path) -> None:
    trainer = sick_run(tiny("iters_per_checkpoint=1"), tmp_path, 16, astray(set()))
    assert [e.data["to"] for e in trainer.events("rollback")] == [7]
    quarantined = sorted(p.name for p in (tmp_path / "checkpoints/quarantine").glob("*.pt"))
    assert quarantined == [f"step_{step:08d}.pt" for step in range(8, 13)]  # 13 was found bad before it was saved
    assert len(checkpoint_dir.all_checkpoints(tmp_path / "checkpoints")) == trainer.hp.keep_checkpoints


@pytest.mark.parametrize("killed_at", [15, *(pytest.param(step, marks=pytest.mark.spec) for step in (6, 17))])
def test_a_resume_after_a_rollback_is_bit_exact(tiny: Tiny, tmp_path: Path, killed_at: int) -> None:
    """6: before any checkpoint knows of the rollback; the journal alone tells."""
    straight = sick_run(tiny(OFTEN), tmp_path / "straight", 20, astray(set()))
    limits = Limits(max_steps=20)
    first = trainer_of(tiny(OFTEN), tmp_path / "cut", limits=limits, train_step=sick(astray(set())))

    def kill(trainer: Watched) -> None:
        if trainer.progress.rollbacks and trainer.progress.step == killed_at:
            raise KeyboardInterrupt

    first.on_step = kill
    with pytest.raises(KeyboardInterrupt):
        first.fit()
    second = resumed(tiny(OFTEN), tmp_path / "cut", 20)
    assert_same_run(straight, second)


@pytest.mark.spec
def test_a_lasting_fault_ends_with_a_diagnosis_after_so_many_rollbacks(tiny: Tiny, tmp_path: Path) -> None:
    hp = tiny(f"{OFTEN},max_restart_attempts=2")
    make = sick(lambda train_step, step, losses: large_gradient(train_step, losses) if step > 12 else None)
    trainer = trainer_of(hp, tmp_path, limits=Limits(max_steps=100), train_step=make)
    told_all = "(?s)went back 2 times.*learning rate is too high.*last good:.*step_0000"
    with pytest.raises(GaveUp, match=told_all) as raised:
        trainer.fit()
    assert raised.value.exit_code == 4
    told = diagnosis(tmp_path)
    assert told["kind"] == "explosion" and told["step"] >= 18 and "gradient_explosion_threshold=1000" in told["message"]
    assert set(told["utterances"]) == {"0", "1", "2", "3", "4"} and Path(told["last_good"]).exists()
    assert [e.data["to"] for e in trainer.events("rollback")] == [10, 5]  # in vain: further back
    assert [e.data["rate"] for e in trainer.events("rollback")] == [0.5, 0.5]
    assert trainer.events("gave_up")[0].data["kind"] == "explosion"
    for path in checkpoint_dir.all_checkpoints(tmp_path / "checkpoints"):
        assert checkpoint_dir.status_of(path).problem is None

    # an external loop that starts it again
    again = trainer_of(hp, tmp_path, limits=Limits(max_steps=100), attempt=2)
    with pytest.raises(GaveUp, match="went back 2 times"):
        again.fit()
    assert again.seen == []
    # a person who changes something
    resumed(hp.model_copy(update={"max_restart_attempts": 3}), tmp_path, 40)
    assert not (tmp_path / "diagnosis.json").exists()


@pytest.mark.slow
def test_the_count_of_attempts_survives_a_kill_and_ends_beyond_the_failure(tiny: Tiny, tmp_path: Path) -> None:
    hp = tiny(OFTEN)
    for attempt in (1, 2, 3):
        make = sick(lambda train_step, step, losses: nan_loss(train_step, losses) if step > 8 else None)
        trainer = trainer_of(hp, tmp_path, limits=Limits(max_steps=40), attempt=attempt, train_step=make)
        newest = checkpoint_dir.newest_good(tmp_path / "checkpoints")
        if newest:
            trainer.restore(checkpoint_file.load(newest))
        assert trainer.faults.rollback.journal.attempts == attempt - 1

        def kill(t: Watched) -> None:
            if t.events("rollback"):
                raise KeyboardInterrupt

        trainer.on_step = kill
        with pytest.raises(KeyboardInterrupt):
            trainer.fit()
    healthy = resumed(hp, tmp_path, 40)
    assert healthy.faults.rollback.journal.attempts == 0 and healthy.progress.rollbacks == 3


def test_without_emergency_restarts_the_run_stops_in_place_of_going_back(tiny: Tiny, tmp_path: Path) -> None:
    hp, limits = tiny(f"{OFTEN},emergency_restart_enabled=False"), Limits(max_steps=40)
    trainer = trainer_of(hp, tmp_path, limits=limits, train_step=sick(astray(set())))
    with pytest.raises(GaveUp, match="emergency_restart_enabled=False"):
        trainer.fit()
    assert (diagnosis(tmp_path)["step"], diagnosis(tmp_path)["kind"]) == (13, "not_finite")
    assert not trainer.events("rollback") and resumed(trainer.hp, tmp_path, 16).progress.step == 16


def test_gradients_that_vanish_lead_back(tiny: Tiny, tmp_path: Path) -> None:
    def vanish(train_step: Sick, losses: dict[str, Tensor]) -> None:
        for parameter in train_step.model.parameters():
            if parameter.grad is not None:
                parameter.grad *= 1e-9

    trainer = sick_run(tiny(OFTEN), tmp_path, 20, while_data(7, 16, vanish, set()))
    (event,) = trainer.events("rollback")
    assert (event.step, event.data["to"], event.data["reason"]) == (16, 5, "vanished")


def test_alignment_that_is_lost_leads_back_to_where_it_was_there(tiny: Tiny, tmp_path: Path) -> None:
    """A tiny model does not align, so what validation measures is given here."""
    measured = iter([0.9, 0.8, 0.1, 0.1, 0.9, 0.9, 0.9])

    class Measured(Validator):
        def run(self, **more: Any) -> Validated:
            result = super().run(**more)
            result.free_running["alignment"] = next(measured)
            return result

    trainer = trained(tiny("iters_per_checkpoint=4,validate_interval=4"), tmp_path, 20, validator=Measured)
    assert kinds(trainer, "tightened", "rollback") == [(12, "tightened"), (16, "rollback")]
    (event,) = trainer.events("rollback")
    assert (event.data["to"], event.data["reason"]) == (8, "alignment_lost")
    best = checkpoint_dir.pointed(tmp_path / "checkpoints", "best")
    assert best is not None and best.name == f"step_{trainer.progress.best_step:08d}.pt"
    assert [r.step for r in trainer.records if isinstance(r, EvalRecord)] == [4, 8, 12, 16, 12, 16, 20]


# ---- recordings


def test_a_broken_recording_is_named_and_passed_over_epoch_after_epoch(tiny: Tiny, tmp_path: Path) -> None:
    hp = tiny("batch_size=1")
    trainer = trainer_of(hp, tmp_path, corpus=poisoned(hp, 2), limits=Limits(max_steps=40))
    trainer.fit()
    skipped = trainer.events("skipped")
    assert len(skipped) == 8 and all(e.data["utterances"] == ["2"] and "mel of 2" in e.message for e in skipped)
    assert not trainer.events("tightened") and checkpoint_file.all_finite(trainer.model.state_dict())


def test_where_every_batch_is_broken_the_run_stops_and_names_the_recording(tiny: Tiny, tmp_path: Path) -> None:
    hp = tiny("batch_size=5")
    trainer = trainer_of(hp, tmp_path, corpus=poisoned(hp, 3), limits=Limits(max_steps=100))
    with pytest.raises(GaveUp, match="(?s)damaged after the corpus was checked.*utterances:  3"):
        trainer.fit()
    told = diagnosis(tmp_path)
    assert (told["step"], told["kind"], told["utterances"]) == (BAD_DATA_STEPS, "bad_data", ["3"])


# ---- half precision


def test_the_search_for_the_loss_scale_is_no_fault(tiny: Tiny, tmp_path: Path) -> None:
    trainer = trained(tiny("fp16_run=True,amp_dtype=fp16,loss_scale_init=1e38,loss_scale_factor=2"), tmp_path, 30)
    assert len(trainer.events("loss_scale_cut")) > 20
    assert not kinds(trainer, "skipped", "tightened", "rollback") and trainer.faults.policy.state.bad_step_score == 0


# ---- a full disk in the middle of it


def test_a_rollback_goes_on_where_its_journal_can_not_be_written(tiny: Tiny, tmp_path: Path) -> None:
    trainer = trainer_of(tiny(OFTEN), tmp_path, limits=Limits(max_steps=20), train_step=sick(astray(set())))

    def obstruct(t: Watched) -> None:
        if t.progress.step == 1:
            (tmp_path / "recovery.json").mkdir()  # no file can take its place

    trainer.on_step = obstruct
    trainer.fit()
    assert [e.data["to"] for e in trainer.events("rollback")] == [5] and trainer.progress.step == 20
