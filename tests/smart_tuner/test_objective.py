"""How trials are judged: comparable across batch sizes, finite whatever happened, and blind to loss weights."""

import math

import pytest

from smart_tuner.objective import (
    DEAD_ALIGNMENT,
    WORST_VALUE,
    budget_of,
    is_diverged,
    plan_of,
    pruning_score,
    score_trial,
    value_of,
)
from smart_tuner.search_space import Range


def evaluation(step: int = 10, **changes: float) -> dict:
    free = {"alignment": 0.9, "mel_distance": 0.3, "stop_rate": 1.0, "duration_error": 0.0}
    free |= {name: value for name, value in changes.items() if name in free}
    losses = {"mel_post": 0.5, "guided_attention": 0.1, "total": 1.0}
    losses |= {name: value for name, value in changes.items() if name in losses}
    return {
        "type": "eval", "step": step, "epoch": step / 10, "losses": losses, "free_running": free, "score": 0.35
    }  # fmt: skip


def step_record(step: int, total: float) -> dict:
    return {"type": "step", "step": step, "epoch": step / 10, "losses": {"total": total}}


def test_the_value_adds_the_parts_by_their_weights() -> None:
    record = evaluation(alignment=0.8, mel_distance=0.4, stop_rate=0.5, duration_error=0.2, mel_post=0.6)
    assert value_of(record) == pytest.approx(0.4 + 0.5 * 0.2 + 0.25 * 0.5 + 0.25 * 0.2 + 0.1 * 0.6)


@pytest.mark.parametrize(
    ("part", "worse"),
    [("alignment", 0.5), ("mel_distance", 0.6), ("stop_rate", 0.5), ("duration_error", 0.5), ("mel_post", 1.0)],
)
def test_each_part_makes_a_trial_worse(part: str, worse: float) -> None:
    assert value_of(evaluation(**{part: worse})) > value_of(evaluation())


@pytest.mark.parametrize("part", ["total", "guided_attention"])
def test_weighted_losses_have_no_part_in_the_value(part: str) -> None:
    assert value_of(evaluation(**{part: 99.0})) == value_of(evaluation())


@pytest.mark.parametrize("part", ["alignment", "mel_distance", "stop_rate", "duration_error", "mel_post"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_the_value_is_finite_and_at_most_the_worst_whatever_was_measured(part: str, value: float) -> None:
    assert value_of(evaluation(**{part: value})) <= WORST_VALUE
    assert math.isfinite(pruning_score(evaluation(**{part: value})))


def test_dead_attention_costs_more_the_deader_it_is_and_breaks_a_constraint() -> None:
    alive, half, dead = (value_of(evaluation(alignment=a)) for a in (DEAD_ALIGNMENT, DEAD_ALIGNMENT / 2, 0.0))
    assert dead - half == pytest.approx(half - alive) and half - alive > 0.5
    assert score_trial([evaluation(alignment=0.0)], "finished").constraints["attention"] > 0
    assert score_trial([evaluation(alignment=0.5)], "finished").constraints["attention"] < 0


def test_the_best_validation_is_what_counts_and_gives_the_epoch() -> None:
    records = [evaluation(10, mel_distance=0.5), evaluation(20, mel_distance=0.3), evaluation(30, mel_distance=0.4)]
    result = score_trial(records, "finished")
    assert (result.step, result.epoch, result.is_failed) == (20, 2.0, False)
    assert result.value == value_of(records[1])
    assert result.parts["mel_distance"] == 0.3 and result.parts["validation_mel_loss"] == 0.5


def test_what_was_misheard_adds_to_the_value() -> None:
    deaf, clear, noise = (score_trial([evaluation()], "finished", misheard) for misheard in (None, 0.1, 1.0))
    assert clear.value == deaf.value + 0.1 and noise.value == deaf.value + 1.0
    assert "misheard" not in deaf.parts and clear.parts["misheard"] == 0.1
    worst = score_trial([evaluation(alignment=0.0, mel_distance=9.0)], "finished", 1.0)
    assert worst.value <= WORST_VALUE


@pytest.mark.parametrize("ending", ["died", "diverged", "stalled"])
def test_a_failed_trial_has_the_worst_value_and_breaks_the_constraints(ending) -> None:
    result = score_trial([evaluation()], ending)
    assert result.is_failed and result.value == WORST_VALUE > value_of(evaluation(alignment=0.0, mel_distance=9.0))
    assert result.constraints["failed"] > 0 and result.constraints["attention"] > 0


def test_a_trial_without_any_validation_failed() -> None:
    assert score_trial([step_record(1, 1.0)], "finished").is_failed


def test_three_records_in_a_row_without_a_finite_loss_are_divergence() -> None:
    good, bad = [step_record(i, 1.0) for i in range(3)], [step_record(i, math.nan) for i in range(3, 6)]
    assert is_diverged(good + bad) and not is_diverged(good + bad[:2]) and not is_diverged(bad + good[:1])
    skipped = [{**record, "losses": {}} for record in bad]  # no step was taken at all
    assert is_diverged(skipped)


@pytest.mark.parametrize("max_steps", [None, 50])
def test_trials_of_any_batch_size_see_equally_many_utterances(max_steps: int | None) -> None:
    """40 steps of 16 an epoch are 80 of 8: both trials see the same, and are validated at the same places."""
    searched = Range(2, 6, "integer")
    budget = budget_of(searched, epochs=70, validate_interval=100, steps_per_epoch=40, max_steps=max_steps)
    same, halved = plan_of(budget, steps_per_epoch=40), plan_of(budget, steps_per_epoch=80)
    assert same.max_steps == (max_steps or 240) and halved.max_steps == 2 * same.max_steps
    assert halved.validate_interval == 2 * same.validate_interval and halved.epochs == same.epochs
    for plan, steps_per_epoch in ((same, 40), (halved, 80)):
        epochs = [k * plan.validate_interval / steps_per_epoch for k in range(1, 4)]
        assert [budget.rung(epoch) for epoch in epochs] == [1, 2, 3]


def test_the_range_of_epochs_is_the_budget_and_what_no_trial_is_pruned_before() -> None:
    budget = budget_of(Range(2, 6, "integer"), epochs=70, validate_interval=20, steps_per_epoch=40, max_steps=None)
    assert (budget.epochs, budget.warm_epochs, budget.rung_epochs, budget.warmup_validations) == (6.0, 2.0, 0.5, 4)
    fixed = budget_of(None, epochs=3, validate_interval=1000, steps_per_epoch=40, max_steps=None)
    assert (fixed.epochs, fixed.warm_epochs) == (3.0, 1.0)
    assert fixed.epochs / fixed.rung_epochs == 5, "a short trial is still validated five times"
