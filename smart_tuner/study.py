"""The study in its database: its name, its sampler and pruner, and what its finished trials say."""

from collections.abc import Mapping
from threading import local
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import BasePruner, MedianPruner, PatientPruner
from optuna.samplers import BaseSampler, TPESampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from smart_tuner.search_space import Choices, Range
from smart_tuner.storage import experimental_parts
from smart_tuner.trial_queue import DONE, origin_of

STARTUP_TRIALS = 5  # drawn at random before TPE learns from them, and before anything is pruned
CONFIRMATION = "confirmation"  # attribute of the study, see confirmation.py
PATIENCE = 1  # validations without progress before a trial may be pruned: attention comes suddenly


class SeededTPE(BaseSampler):
    """TPE whose draws depend on the seed, the trial's number and the finished trials alone.

    A sampler with one generator would, after a restart, draw its first values again. Constraints are learnt from;
    parameters that act only under some values of others form groups of their own. first: the values of trial 0.
    n_startup: trials that are drawn at random.
    """

    def __init__(self, seed: int, *, first: Mapping[str, Any], n_startup: int = STARTUP_TRIALS) -> None:
        self._seed, self._first, self._n_startup, self._mine = seed, first, n_startup, local()

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        seed = (self._seed * 1_000_003 + origin_of(trial)) % 2**32
        with experimental_parts():
            self._mine.tpe = TPESampler(seed=seed, n_startup_trials=self._n_startup, multivariate=True, group=True)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._mine.tpe.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        drawn = self._mine.tpe.sample_relative(study, trial, search_space)
        return {} if origin_of(trial) == 0 else drawn

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        if origin_of(trial) == 0 and param_name in self._first:
            return self._first[param_name]
        return self._mine.tpe.sample_independent(study, trial, param_name, param_distribution)


def pruner(*, warmup_validations: int) -> BasePruner:
    """Ends a trial that doesn't get better and is behind half of the others, once some have finished."""
    with experimental_parts():
        median = MedianPruner(n_startup_trials=STARTUP_TRIALS, n_warmup_steps=warmup_validations)
        return PatientPruner(median, patience=PATIENCE)


def distribution(searched: Choices | Range) -> BaseDistribution:
    if isinstance(searched, Choices):
        return CategoricalDistribution(searched.values)
    if searched.scale == "integer":
        return IntDistribution(searched.low, searched.high)
    return FloatDistribution(searched.low, searched.high, log=searched.scale == "log")


# -- opening ----------------------------------------------------------------------------------------------------------


def study_name(base: str, storage: RDBStorage, *, is_new: bool) -> str:
    """`base`, `base #2`, ...: the newest that exists, or with is_new the next one."""
    names = {study.study_name for study in storage.get_all_studies()}
    n = 1
    while _numbered(base, n + 1) in names:
        n += 1
    return _numbered(base, n + (is_new and _numbered(base, n) in names))


def _numbered(base: str, n: int) -> str:
    return base if n == 1 else f"{base} #{n}"


def open_study(
    storage: RDBStorage, name: str, *, seed: int, first: Mapping[str, Any], warmup_validations: int
) -> optuna.Study:
    return optuna.create_study(
        storage=storage,
        study_name=name,
        sampler=SeededTPE(seed, first=first),
        pruner=pruner(warmup_validations=warmup_validations),
        direction="minimize",
        load_if_exists=True,
    )


# -- what was found ---------------------------------------------------------------------------------------------------


def is_failed(trial: FrozenTrial) -> bool:
    return bool(trial.user_attrs.get("failed"))


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """Complete and pruned ones, in the order of their origins."""
    return sorted(study.get_trials(deepcopy=False, states=DONE), key=origin_of)


def lowest_trial(study: optuna.Study) -> FrozenTrial | None:
    """The lowest value of a trial that lived to its end; those with attention go before those without."""
    return min(_lived(study), key=lambda t: (t.constraints.get("attention", 0.0) > 0, t.value), default=None)


def first_of(study: optuna.Study) -> FrozenTrial | None:
    """The trial with the settings as they were; None unless it lived to its end."""
    return next((trial for trial in _lived(study) if origin_of(trial) == 0), None)


def _lived(study: optuna.Study) -> list[FrozenTrial]:
    return [trial for trial in finished(study) if trial.state == TrialState.COMPLETE and not is_failed(trial)]


def confirmation_of(study: optuna.Study) -> Mapping[str, Any] | None:
    """What `--confirm` found of the lowest trial: the values of its trainings and of those of the settings."""
    found, lowest = study.user_attrs.get(CONFIRMATION, {}), lowest_trial(study)
    return found if lowest is not None and found.get("best") == origin_of(lowest) else None


def is_open(study: optuna.Study, *, n_seeds: int) -> bool:
    """Whether the lowest trial may be lower than the settings as they were by luck: fewer other seeds have judged."""
    lowest, first, found = lowest_trial(study), first_of(study), confirmation_of(study)
    if lowest is None or first is None or lowest.number == first.number:
        return False
    return found is None or len(found["of_best"]) < n_seeds


def is_confirmed(found: Mapping[str, Any]) -> bool:
    """Better with every seed."""
    return max(found["of_best"]) < min(found["of_first"])


def best_trial(study: optuna.Study) -> FrozenTrial | None:
    """The lowest trial; the first one where a confirmation has found the two equal."""
    found = confirmation_of(study)
    return first_of(study) if found is not None and not is_confirmed(found) else lowest_trial(study)
