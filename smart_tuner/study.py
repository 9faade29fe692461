"""The study in its database: opening, sampling, counting, and trials that are to be run again.

Optuna's own parts do the work. Trials of the database that belong together (one that was interrupted, and its later
runs) share an `origin`: the number of the first, which names their directory.
"""

import sqlite3
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import local
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import BasePruner, MedianPruner, PatientPruner
from optuna.samplers import BaseSampler, TPESampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from common.errors import UserError
from common.redaction import without_secrets
from smart_tuner.search_space import Choices, Range

DATABASE = "optuna.db"
# by the module that SQLAlchemy imports: the package that brings it
DRIVER_PACKAGES = {"psycopg2": "psycopg2-binary", "psycopg": "'psycopg[binary]'", "mysqldb": "mysqlclient"}
KINDS = ("postgresql", "mysql", "mariadb", "sqlite")  # of databases
HEARTBEAT_S, GRACE_S = 60, 300  # a trial without a heartbeat for so long has lost its machine
MAX_RETRIES = 2  # of a trial whose machine was lost
STARTUP_TRIALS = 5  # drawn at random before TPE learns from them, and before anything is pruned
PATIENCE = 1  # validations without progress before a trial may be pruned: attention comes suddenly
LOCK_WAIT_S = 60  # for a database that another process writes to


@contextmanager
def experimental_parts() -> Iterator[None]:
    """Optuna warns that heartbeat, groups and patience may change, and that heartbeats are for its own loop."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        warnings.filterwarnings("ignore", message="Heartbeat of storage is supposed")
        yield


class SeededTPE(BaseSampler):
    """TPE whose draws depend on the seed, the trial's number and the finished trials alone.

    A sampler with one generator would, after a restart, draw its first values again. Constraints are learnt from;
    parameters that act only under some values of others form groups of their own.
    """

    def __init__(self, seed: int) -> None:
        self._seed, self._mine = seed, local()

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        seed = (self._seed * 1_000_003 + trial.number) % 2**32
        with experimental_parts():
            self._mine.tpe = TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS, multivariate=True, group=True)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._mine.tpe.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._mine.tpe.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
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


def open_storage(url: str | None, directory: Path) -> RDBStorage:
    """The database of the URL, or SQLite in `directory`. UserError where it can't be opened."""
    if url is None:
        directory.mkdir(parents=True, exist_ok=True)
        path = (directory / DATABASE).resolve()
        use_write_ahead_log(path)
        url = f"sqlite:///{path}"
    arguments = {"connect_args": {"timeout": LOCK_WAIT_S}} if url.startswith("sqlite") else {}
    try:
        make_url(url)
        shown = without_secrets(url)
    except ArgumentError:
        raise UserError(
            "--storage is no database URL; write sqlite:///FILE or postgresql://HOST/NAME (USER:PASSWORD@ before HOST)"
        ) from None
    if (problem := _unusable(url)) is not None:
        raise UserError(f"--storage {shown}: cannot open it: {problem}")
    try:
        with experimental_parts():
            return RDBStorage(
                url,
                engine_kwargs=arguments,
                heartbeat_interval=HEARTBEAT_S,
                grace_period=GRACE_S,
                heartbeat_stale_trial_callback=retry_lost,
            )
    except ImportError:
        raise UserError(f"--storage {shown}: its driver is missing; {_driver_advice(url)}") from None
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--storage {shown}: cannot open it: {type(error).__name__}: {reason}") from None


def _unusable(url: str) -> str | None:
    """What is known of an address before anything is opened: a kind, a driver or a file that can't hold a study."""
    address = make_url(url)
    try:
        is_async = address.get_dialect().is_async
    except NoSuchModuleError:
        kind = address.get_backend_name()
        kinds = [name for name in KINDS if name.startswith(kind)] or KINDS
        return f"no such kind of database or driver is known; write {' or '.join(f'{name}://' for name in kinds)}"
    except ImportError:
        return None  # its driver is missing, which opening says
    if is_async:
        return f"its driver is an asynchronous one, and the search needs another; write {address.get_backend_name()}://"
    if address.get_backend_name() != "sqlite":
        return None
    if address.database in (None, "", ":memory:"):
        return "a database in memory is gone with the command; name a file, as in sqlite:///study.db"
    folder = Path(address.database).absolute().parent
    return None if folder.is_dir() else f"there is no folder {folder}; make it, or name another"


def _driver_advice(url: str) -> str:
    driver = make_url(url).get_dialect().driver
    return f"pip install {DRIVER_PACKAGES.get(driver, driver)}"


def use_write_ahead_log(path: Path) -> None:
    """Readers and one writer at a time without allow_host_sync for each other; SQLite remembers it in the file."""
    connection = sqlite3.connect(path, timeout=LOCK_WAIT_S)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
    except sqlite3.DatabaseError as error:
        raise UserError(f"{path} is no usable study ({error}); --new-study moves it aside") from None
    finally:
        connection.close()


def study_name(base: str, storage: RDBStorage, *, is_new: bool) -> str:
    """`base`, `base #2`, ...: the newest that exists, or with is_new the next one."""
    names = {study.study_name for study in storage.get_all_studies()}
    n = 1
    while _numbered(base, n + 1) in names:
        n += 1
    return _numbered(base, n + (is_new and _numbered(base, n) in names))


def _numbered(base: str, n: int) -> str:
    return base if n == 1 else f"{base} #{n}"


def open_study(storage: RDBStorage, name: str, *, seed: int, warmup_validations: int) -> optuna.Study:
    return optuna.create_study(
        storage=storage,
        study_name=name,
        sampler=SeededTPE(seed),
        pruner=pruner(warmup_validations=warmup_validations),
        direction="minimize",
        load_if_exists=True,
    )


# -- trials -----------------------------------------------------------------------------------------------------------


def trial_id_of(trial: FrozenTrial | optuna.Trial) -> int:
    return int(trial.user_attrs.get("origin", trial.number))


def retry_lost(study: optuna.Study, trial: FrozenTrial) -> None:
    """Puts a trial whose machine was lost into the queue again, a few times."""
    retries = int(trial.user_attrs.get("retries", 0)) + 1
    if retries <= MAX_RETRIES:
        enqueue_again(study, trial, {"retries": retries})


def enqueue_again(study: optuna.Study, trial: FrozenTrial, attributes: Mapping[str, Any]) -> None:
    """The same parameters once more; its directory, and so its checkpoint, is the same."""
    study.add_trial(
        optuna.create_trial(
            state=TrialState.WAITING,
            params=trial.params,
            distributions=trial.distributions,
            user_attrs={"origin": trial_id_of(trial), **attributes},
        )
    )


def started(study: optuna.Study) -> int:
    """Trials that count: each origin once, unless its latest run still waits to be started."""
    trials = [trial for trial in study.get_trials(deepcopy=False) if not trial.user_attrs.get("withdrawn")]
    latest = {trial_id_of(trial): trial.state for trial in trials}
    return sum(state != TrialState.WAITING for state in latest.values())


def is_failed(trial: FrozenTrial) -> bool:
    return bool(trial.user_attrs.get("failed"))


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """Complete and pruned ones, in the order of their origins."""
    states = (TrialState.COMPLETE, TrialState.PRUNED)
    return sorted(study.get_trials(deepcopy=False, states=states), key=trial_id_of)


def best_trial(study: optuna.Study) -> FrozenTrial | None:
    """The lowest value of a trial that lived to its end; those with attention go before those without."""
    complete = [t for t in finished(study) if t.state == TrialState.COMPLETE and not is_failed(t)]
    return min(complete, key=lambda t: (t.constraints.get("attention", 0.0) > 0, t.value), default=None)


STORAGE_ERRORS = (optuna.exceptions.StorageInternalError, SQLAlchemyError)


def retry_storage(action: Callable[[], Any], wait: Callable[[float], object], *, tries: int = 6) -> Any:
    """A database that can't be written to for a while (locked, restarted) must not cost a trial's result."""
    for attempt in range(1, tries):
        try:
            return action()
        except STORAGE_ERRORS:
            wait(2.0**attempt)
    return action()
