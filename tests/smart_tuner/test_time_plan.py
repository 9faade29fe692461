"""Budgets from the first trial's speed: as many trials as asked for fit, and what is planned is said."""

import pytest

from smart_tuner.objective import Budget
from smart_tuner.time_plan import MOST_VALIDATING, SPENT_SHARE, Speed, as_attribute, fit, from_attribute, say, speed_of

WHOLE = Budget(epochs=300.0, warm_epochs=50.0, rung_epochs=20.0)
SPEED = Speed(startup_s=10.0, step_s=1.0, validation_s=5.0)


def test_what_fits_is_left_as_it_is() -> None:
    plan = fit(WHOLE, SPEED, steps_per_epoch=2, n_trials=3, n_jobs=1, left_s=4000.0)
    assert plan.budget == WHOLE and plan.n_fitting == 3


@pytest.mark.parametrize("left_s", [300.0, 900.0, 1500.0])
@pytest.mark.parametrize("n_jobs", [1, 3])
def test_what_does_not_fit_is_cut_until_all_trials_do(left_s: float, n_jobs: int) -> None:
    plan = fit(WHOLE, SPEED, steps_per_epoch=2, n_trials=3, n_jobs=n_jobs, left_s=left_s)
    assert plan.n_fitting == 3 and plan.trial_s * 3 <= SPENT_SHARE * left_s * n_jobs * 1.001
    if plan.budget != WHOLE:
        assert plan.trial_s * 3 >= 0.95 * SPENT_SHARE * left_s * n_jobs, "and no more than that"
        assert plan.budget.warm_epochs / plan.budget.epochs == pytest.approx(WHOLE.warm_epochs / WHOLE.epochs)


def test_validations_that_take_long_become_fewer() -> None:
    slow = Speed(10.0, 1.0, 60.0)
    plan = fit(WHOLE, slow, steps_per_epoch=2, n_trials=3, n_jobs=1, left_s=900.0)
    n = plan.budget.epochs / plan.budget.rung_epochs
    assert n == pytest.approx(2) and n * slow.validation_s <= MOST_VALIDATING * plan.trial_s


def test_too_little_time_is_said_with_how_many_fit() -> None:
    plan = fit(WHOLE, SPEED, steps_per_epoch=2, n_trials=30, n_jobs=1, left_s=100.0)
    text = say(plan, WHOLE, SPEED, n_trials=30, left_s=100.0)
    assert plan.n_fitting == 4 and "about 4 fit, the same command goes on with the others" in text


def probe(first_s: float, second_s: float) -> list[dict]:
    """What the first twenty steps record: seconds of the first ten and of the others."""
    free = {"free_running": {"alignment": 0.1}}
    return [
        {"type": "step", "step": 10, "time": 130.0, "step_s": first_s},
        {"type": "eval", "step": 10, "time": 137.0, "duration_s": 7.0, **free},
        {"type": "step", "step": 20, "time": 150.0, "step_s": second_s},
        {"type": "eval", "step": 20, "time": 154.0, "duration_s": 4.0, **free},
    ]


def test_pictures_that_slow_the_steps_after_a_validation_count_as_part_of_it() -> None:
    assert speed_of(probe(0.3, 0.6), began=100.0) == Speed(27.0, 0.3, pytest.approx(7.0 + 10 * 0.3))


def test_the_speed_is_that_of_the_fastest_steps_and_the_slowest_validation() -> None:
    records = probe(2.0, 1.3)
    assert speed_of(records[:1], began=100.0) is None
    assert speed_of(records, began=100.0) == Speed(startup_s=30.0 - 13.0, step_s=1.3, validation_s=7.0)


def test_a_budget_comes_back_from_the_database() -> None:
    assert from_attribute(as_attribute(WHOLE), Budget(1.0, 1.0, 1.0)) == WHOLE
