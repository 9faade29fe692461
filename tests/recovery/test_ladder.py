"""The policy as numbers: what is bad, what follows, what it remembers."""

from collections.abc import Callable
from dataclasses import asdict
from math import inf, nan

import pytest

from hparams import HParams, create_hparams
from recovery.ladder import (
    BAD_DATA_STEPS,
    CAUTIOUS_AT,
    CAUTIOUS_STEPS,
    GOOD_STEP,
    ROLL_BACK_AT,
    SETTLED_STEPS,
    VANISHED_STEPS,
    Decision,
    RecoveryPolicy,
    RecoveryState,
)

HP = create_hparams()


def policy(overrides: str = "") -> RecoveryPolicy:
    return RecoveryPolicy(create_hparams(overrides))


def fed(one: RecoveryPolicy, step: int, loss: float = 1.0, norm: float = 1.0, *, is_data_bad: bool = False) -> Decision:
    fault = one.limits.fault(loss, norm)
    return one.after_step(step, fault, loss=loss, norm=norm, at=(0, step - 1), is_data_bad=is_data_bad)


def settled() -> RecoveryPolicy:
    one = policy()
    for step in range(1, SETTLED_STEPS + 1):
        fed(one, step, loss=1.0 + 0.1 * (step % 3))
    return one


@pytest.mark.parametrize(
    ("loss", "norm", "kind"),
    [
        (nan, 1.0, "not_finite"),
        (1.0, inf, "not_finite"),
        (1.0, 1000.5, "explosion"),
        (1.0, 999.5, None),
        (9.0, 1.0, None),
    ],
)
def test_what_is_wrong_with_a_step(loss: float, norm: float, kind: str | None) -> None:
    fault = policy().limits.fault(loss, norm)
    assert (fault.kind if fault else None) == kind


def test_the_thresholds_are_those_of_the_settings() -> None:
    assert policy("gradient_explosion_threshold=5").limits.fault(1.0, 6.0) is not None
    strict = policy("nan_detection_threshold=0.5")
    verdicts = [fed(strict, step, norm=0.4) for step in range(1, VANISHED_STEPS + 1)]
    assert [v.fault for v in verdicts[:-1]] == [None] * (VANISHED_STEPS - 1)
    fault = verdicts[-1].fault
    assert fault is not None and (fault.kind, fault.onset, fault.position) == ("vanished", 1, (0, 0))


def test_one_usual_gradient_ends_the_count_of_vanished_ones() -> None:
    one = policy()
    norms = [1e-9] * (VANISHED_STEPS - 1) + [1.0] + [1e-9] * (VANISHED_STEPS - 1)
    assert not [v for v in (fed(one, i, norm=norm) for i, norm in enumerate(norms, 1)) if v.fault]


def test_a_loss_far_out_is_a_spike_only_once_the_scale_has_settled() -> None:
    assert policy().limits.fault(50.0, 1.0) is None
    one = settled()
    fault = one.limits.fault(50.0, 1.0)
    assert fault is not None and fault.kind == "spike"
    assert one.limits.fault(2.5, 1.0) is None  # far out by the distance, but not three times the mean
    one.new_phase()
    assert one.limits.fault(50.0, 1.0) is None


def test_a_spike_does_not_widen_the_scale_enough_to_hide_the_next() -> None:
    one = settled()
    for step in range(51, 54):
        fed(one, step, loss=1e6)
    assert one.limits.fault(50.0, 1.0) is not None and one.state.mean_loss < 2.0


def test_the_ladder_is_climbed_rung_by_rung() -> None:
    one = policy()
    verdicts = [fed(one, step, loss=nan) for step in range(5, 5 + int(ROLL_BACK_AT))]
    kinds = [[kind for kind, _ in verdict.events] for verdict in verdicts]
    assert kinds == [[], [], ["tightened"], [], [], []] and int(CAUTIOUS_AT) == 3
    assert [v.fault is None for v in verdicts] == [True] * 5 + [False]
    fault = verdicts[-1].fault
    assert fault is not None and (fault.kind, fault.onset, fault.position) == ("not_finite", 5, (0, 4))


def test_tightened_settings_relax_after_good_steps() -> None:
    one = policy()
    for step in range(1, 4):
        fed(one, step, loss=nan)
    assert (one.clip_factor, one.rate_factor) == (0.25, 0.5)
    events = [(step, kind) for step in range(4, 300) for kind, _ in fed(one, step).events]
    assert events == [(3 + CAUTIOUS_STEPS, "relaxed")]
    assert (one.clip_factor, one.rate_factor) == (1.0, 1.0)


@pytest.mark.parametrize(("every", "climbs"), [(2, True), (3, True), (6, False), (50, False)])
def test_a_bad_recording_now_and_then_does_not_climb_and_every_second_step_does(every: int, climbs: bool) -> None:
    one = policy()
    verdicts = [fed(one, step, loss=1.0 if step % every else nan) for step in range(1, 300)]
    assert any(v.fault or v.events for v in verdicts) == climbs
    assert 1 / GOOD_STEP + 1 == 5  # the share that it takes


def test_bad_data_is_passed_over_until_nothing_else_comes() -> None:
    one = policy()
    verdicts = [fed(one, step, loss=nan, is_data_bad=True) for step in range(1, BAD_DATA_STEPS + 1)]
    assert one.state.bad_step_score == 0 and not any(v.events for v in verdicts)
    fault = verdicts[-1].fault
    assert fault is not None and fault.kind == "bad_data" and not any(v.fault for v in verdicts[:-1])


def test_alignment_must_have_formed_to_be_lost_and_twice() -> None:
    one = policy()
    see: Callable[[int, float], Decision] = lambda step, value: one.after_validation(  # noqa: E731
        step, value, at=(1, step), hp=HP
    )
    assert see(100, 0.1) == see(200, 0.1) == Decision()  # not formed yet
    assert see(300, 0.8) == see(400, 0.3) == Decision()  # weak, not lost
    assert [kind for kind, _ in see(500, 0.1).events] == ["tightened"]
    assert see(600, 0.8) == see(700, 0.9) == Decision()
    see(800, 0.1)
    fault = see(900, 0.1).fault
    assert fault is not None and (fault.kind, fault.onset, fault.position) == ("alignment_lost", 701, (1, 700))


def test_the_memory_survives_a_checkpoint(tiny: Callable[..., HParams]) -> None:
    straight, first = policy(), policy()
    losses = [1.0, nan, 1.2, nan, nan, 0.9, nan, nan, 1.1, nan, nan]
    whole = [fed(straight, step, loss) for step, loss in enumerate(losses, 1)]
    before = [fed(first, step, loss) for step, loss in enumerate(losses[:5], 1)]
    second = policy()
    second.state = RecoveryState(**asdict(first.state))
    after = [fed(second, step, loss) for step, loss in enumerate(losses[5:], 6)]
    assert before + after == whole and second.state == straight.state and any(v.fault for v in whole)


def test_a_checkpoint_of_version_0_1_0_is_understood() -> None:
    saved = {
        "seen": 7, "mean": 1.5, "distance": 0.25, "pressure": 2.0, "onset": 5, "onset_position": (0, 4), "bad_data": 1,
        "small": 3, "small_position": (0, 3), "tight_until": 207, "formed_at": 4, "formed_position": (0, 2), "lost": 1,
    }  # fmt: skip
    expected = RecoveryState(
        n_losses=7, mean_loss=1.5, loss_deviation=0.25, bad_step_score=2.0, first_bad_step=5, first_bad_position=(0, 4),
        bad_data_steps=1, vanished_steps=3, vanished_position=(0, 3), cautious_until=207, aligned_at=4,
        aligned_position=(0, 2), unaligned_validations=1,
    )  # fmt: skip
    assert RecoveryState.of(saved) == RecoveryState.of(asdict(expected)) == expected
