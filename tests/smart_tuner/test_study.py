"""The sampler on a made-up objective that answers at once: what is bad is left, and draws depend on the trial alone."""

import optuna
import pytest

from smart_tuner.objective import WORST_VALUE
from smart_tuner.study import SeededTPE
from support.studies import BAD_RATE, SPACE, value_of

FIRST = {"learning_rate": 1e-3, "warmup_steps": 2000}


def searched(n: int, *, seed: int) -> optuna.Study:
    study = optuna.create_study(sampler=SeededTPE(seed, first=FIRST))
    for _ in range(n):
        trial = study.ask(SPACE)
        value = value_of(trial.params)
        trial.set_constraint("failed", 1.0 if value == WORST_VALUE else -1.0)
        study.tell(trial, value)
    return study


@pytest.mark.parametrize("seed", [1234, 1, 2])
def test_a_planted_bad_region_is_left_after_few_trials(seed: int) -> None:
    """Rates of 1e-2 to 1e-1 fail: a quarter of the range, so that chance would draw 5 of 20 there."""
    rates = [trial.params["learning_rate"] for trial in searched(40, seed=seed).trials]
    assert sum(rate > BAD_RATE for rate in rates[20:]) <= 1
    assert sum(3e-4 < rate < 3e-3 for rate in rates[10:]) >= 15, "half of the trials near the best rate, 1e-3"


def test_the_first_trial_has_the_values_of_the_settings_and_draws_the_rest() -> None:
    params = searched(1, seed=1234).trials[0].params
    assert FIRST.items() <= params.items() and set(params) == set(SPACE)


def test_a_trial_that_goes_on_draws_what_its_first_attempt_would_have() -> None:
    study, other = (optuna.create_study(sampler=SeededTPE(5, first=FIRST)) for _ in range(2))
    lost = study.ask()
    study.tell(lost, state=optuna.trial.TrialState.FAIL)
    study.add_trial(optuna.create_trial(state=optuna.trial.TrialState.WAITING, user_attrs={"origin": 0}))
    assert study.ask(SPACE).params == other.ask(SPACE).params
