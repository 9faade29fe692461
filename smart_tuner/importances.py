"""How much each hyperparameter matters, with an interval, or nothing where trials are too few to say.

PED-ANOVA, Optuna's default: how far the distribution of a parameter among the better trials differs from that among
all (Watanabe et al. 2023, https://arxiv.org/abs/2304.10255). The interval is a bootstrap over trials.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

LEAST_TRIALS = 20  # finished and judged ones; under that the order of importances is chance
RESAMPLES = 20
INTERVAL = (5, 95)  # percentiles


@dataclass(frozen=True)
class Importance:
    """A share of the whole, and what 90 % of resampled studies say of it."""

    name: str
    share: float
    low: float
    high: float


def importances(trials: Sequence[FrozenTrial], *, seed: int = 0) -> list[Importance]:
    """Of complete trials, the most important first; [] under LEAST_TRIALS. What not every trial has is left out."""
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    if len(complete) < LEAST_TRIALS:
        return []
    whole = _shares(complete)
    generator = np.random.default_rng(seed)
    drawn: dict[str, list[float]] = {name: [] for name in whole}
    for _ in range(RESAMPLES):
        picked = generator.integers(len(complete), size=len(complete))
        for name, share in _shares([complete[i] for i in picked]).items():
            drawn[name].append(share)
    found = [
        Importance(name, share, *(float(end) for end in np.percentile(drawn[name] or [share], INTERVAL)))
        for name, share in whole.items()
    ]
    return sorted(found, key=lambda one: -one.share)


def _shares(trials: Sequence[FrozenTrial]) -> dict[str, float]:
    """{} where all values are the same."""
    if len({trial.value for trial in trials}) < 2:
        return {}
    study = optuna.create_study()
    for trial in trials:
        study.add_trial(
            optuna.create_trial(params=trial.params, distributions=trial.distributions, value=trial.value)
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of parameters that not every trial has
        return optuna.importance.get_param_importances(study)
