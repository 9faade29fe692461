"""The database of a study: opening it, and waiting for it where it can't be reached for a time."""

import sqlite3
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy.event
from optuna.storages import RDBStorage
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from common.errors import GaveUp, UserError
from common.log import LOG
from common.redaction import argument_without_secrets, without_secrets

DATABASE = "optuna.db"
# by the module that SQLAlchemy imports: the package that brings it
DRIVER_PACKAGES = {
    "psycopg2": "psycopg2-binary",
    "psycopg": "'psycopg[binary]'",
    "mysqldb": "mysqlclient",
    "mysqlconnector": "mysql-connector-python",
    "mariadbconnector": "mariadb",
    "pysqlcipher": "sqlcipher3-binary",
}
KINDS = ("postgresql", "mysql", "mariadb", "sqlite")  # of databases
HEARTBEAT_S, GRACE_S = 60, 300  # a trial without a heartbeat for so long has lost its machine
LOCK_WAIT_S = 60  # for a database that another process writes to
CONNECT_S = 10  # to a server
LONGEST_WAIT_S, TRIES = 32.0, 20  # for a database that can't be reached: nine minutes in all
STORAGE_ERRORS = (optuna.exceptions.StorageInternalError, SQLAlchemyError)


@contextmanager
def experimental_parts() -> Iterator[None]:
    """Optuna warns that heartbeat, groups and patience may change, and that heartbeats are for its own loop."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        warnings.filterwarnings("ignore", message="Heartbeat of storage is supposed")
        yield


def open_storage(url: str | None, directory: Path) -> RDBStorage:
    """The database of the URL, or SQLite in `directory`. UserError where it can't be opened."""
    if url is None:
        directory.mkdir(parents=True, exist_ok=True)
        path = (directory / DATABASE).resolve()
        use_write_ahead_log(path)
        url = f"sqlite:///{path}"
    check_address(url)
    try:
        return _open(url)
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError, RuntimeError) as error:
        shown = argument_without_secrets(url)
        raise UserError(f"--storage {shown}: cannot open it: {type(error).__name__}: {_reason(error)}") from None


def check_address(url: str) -> None:
    """UserError where nothing needs to be opened to see that it can't be: no address, kind, driver or folder."""
    try:
        make_url(url)
    except ArgumentError:
        raise UserError(
            "--storage is no database URL; write sqlite:///FILE or postgresql://HOST/NAME (USER:PASSWORD@ before HOST)"
        ) from None
    shown = argument_without_secrets(url)
    if (problem := _unusable(url)) is not None:
        raise UserError(f"--storage {shown}: cannot open it: {problem}")
    try:
        make_url(url).get_dialect().import_dbapi()
    except ImportError:
        raise UserError(f"--storage {shown}: its driver is missing; {_driver_advice(url)}") from None


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
        return None  # its driver is missing, which is said next
    if is_async:
        return f"its driver is an asynchronous one, and the search needs another; write {address.get_backend_name()}://"
    if address.get_backend_name() != "sqlite":
        return None
    if address.database in (None, "", ":memory:"):
        return "a database in memory is gone with the command; name a file, as in sqlite:///study.db"
    folder = Path(address.database).absolute().parent
    return None if folder.is_dir() else f"there is no folder {folder}; make it, or name another"


def _open(url: str) -> RDBStorage:
    """Two machines that make the tables of a new database at the same time disturb each other, once."""
    try:
        return _connect(url)
    except SQLAlchemyError as error:
        if not any(said in str(error).lower() for said in ("already exists", "duplicate key", "unique constraint")):
            raise
        return _connect(url)


def _connect(url: str) -> RDBStorage:
    is_sqlite = url.startswith("sqlite")
    arguments: dict[str, Any] = {"connect_args": {"timeout": LOCK_WAIT_S}}
    if not is_sqlite:
        arguments = {"pool_pre_ping": True}  # a server that was restarted is connected to again
        if url.startswith("postgresql"):
            arguments["connect_args"] = {"connect_timeout": CONNECT_S}
    with experimental_parts():
        storage = RDBStorage(url, engine_kwargs=arguments, heartbeat_interval=HEARTBEAT_S, grace_period=GRACE_S)
    if is_sqlite:
        _one_transaction_at_a_time(storage.engine)
    return storage


def _one_transaction_at_a_time(engine: Engine) -> None:
    """SQLite by default lets two processes read the same row and then both change it: two would take one trial.

    https://docs.sqlalchemy.org/en/21/dialects/sqlite.html#sqlite-transactions
    """

    @sqlalchemy.event.listens_for(engine, "connect")
    def leave_transactions_to_us(connection: Any, _: object) -> None:
        connection.isolation_level = None

    @sqlalchemy.event.listens_for(engine, "begin")
    def lock_at_once(connection: sqlalchemy.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    engine.dispose()  # connections of before


def _driver_advice(url: str) -> str:
    driver = make_url(url).get_dialect().driver
    return f"pip install {DRIVER_PACKAGES.get(driver, driver)}"


def use_write_ahead_log(path: Path) -> None:
    """Readers and one writer at a time without waiting for each other; SQLite remembers it in the file."""
    connection = sqlite3.connect(path, timeout=LOCK_WAIT_S)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
    except sqlite3.DatabaseError as error:
        raise UserError(f"{path} is no usable study ({error}); --new-study moves it aside") from None
    finally:
        connection.close()


# -- while it can't be reached ----------------------------------------------------------------------------------------


def retry_storage(
    action: Callable[[], Any],
    wait: Callable[[float], object],
    *,
    tries: int = TRIES,
    is_ending: Callable[[], bool] = lambda: False,
) -> Any:
    """A database that can't be used for a while (locked, full, restarted) must not cost a trial's result.

    GaveUp with the reason once nine minutes of attempts were in vain, or at once where the search is to end.
    """
    for attempt in range(1, tries + 1):
        try:
            return action()
        except STORAGE_ERRORS as error:
            reason = _reason(error)
            if attempt == tries or is_ending():
                break
            if attempt == 1:
                LOG.warning("the study's database can't be used (%s); trying again for some minutes", reason)
            wait(min(2.0**attempt, LONGEST_WAIT_S))
    raise GaveUp(
        f"the study's database can't be used: {reason}. Once it can, the same command goes on with this study, and "
        "interrupted trials from their own checkpoints"
    )


def _reason(error: BaseException) -> str:
    """What the database said, without what SQLAlchemy and Optuna say around it."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(getattr(error, "orig", None) or error).strip().splitlines()
    return without_secrets(lines[0]) if lines else type(error).__name__
