"""Where MLflow keeps runs: a server, or SQLite beside them with a folder of artifacts, wherever these were moved."""

import os
import shlex
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from monitoring.observer import FILES_CLOSE_S, SERVER_CLOSE_S

ARTIFACTS = "mlflow-artifacts"  # folder beside a local store
LOCAL = "sqlite:///"
LOCK_WAIT_S = 30.0


def store_home(directory: Path) -> Path:
    """The folder of the default store: the run's parent, so that the runs beside each other share one.

    A run directly in the working folder, or in one that can't be written to, has its own.
    """
    directory = directory.resolve()
    parent = directory.parent
    is_closed = parent.exists() and not os.access(parent, os.W_OK)
    return directory if parent in (Path.cwd(), Path(parent.anchor)) or is_closed else parent


def store_uri(directory: Path, tracking_uri: str = "") -> str:
    """Where this run's MLflow data goes: as given, as MLFLOW_TRACKING_URI says, or to SQLite in `store_home`."""
    return tracking_uri or os.environ.get("MLFLOW_TRACKING_URI", "") or f"sqlite:///{store_home(directory)}/mlflow.db"


def ui_command(directory: Path, tracking_uri: str = "") -> str | None:
    """How to look at it; None where a server shows it."""
    path = local_store(store_uri(directory, tracking_uri))
    if path is None:
        return None
    shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return shlex.join(["mlflow", "ui", "--backend-store-uri", f"sqlite:///{shown}"])


def local_store(uri: str) -> Path | None:
    """The file of a local store; None for a server, which knows its own places."""
    return Path(uri.removeprefix(LOCAL)).resolve() if uri.startswith(LOCAL) else None


def close_patience_s(tracking_uri: str = "") -> float:
    """How long the end of a run waits for MLflow: a store on this disk is slow at worst, a server may be dead."""
    return SERVER_CLOSE_S if local_store(store_uri(Path(), tracking_uri)) is None else FILES_CLOSE_S


def artifacts_of(store: Path) -> Path:
    return store.parent / ARTIFACTS


def existing_run(client: Any, run_id: str | None) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        found = client.get_run(run_id) if run_id else None
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":  # a store that was emptied: begin anew
            raise
        return None
    return None if found is None or found.info.lifecycle_stage == "deleted" else found


def experiment_id(client: Any, name: str, *, artifacts: str | None) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifact_location=artifacts))
        except MlflowException:  # a run beside this one was quicker
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    return str(found.experiment_id)


def prepare_sqlite(uri: str) -> None:
    """Makes a new SQLite store whole or not at all.

    MLflow sets it up in seconds of migrations, and one that was cut off in the middle never opens again.
    """
    path = local_store(uri)
    if path is None or path.exists():
        return
    from mlflow.tracking import MlflowClient

    path.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="mlflow-"))
    copy = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        MlflowClient(tracking_uri=f"sqlite:///{folder}/new.db").search_experiments(max_results=1)
        shutil.copyfile(folder / "new.db", copy)
        _link(copy, path)
    finally:
        copy.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)


def _link(source: Path, target: Path) -> None:
    """Gives the file its second name, unless a run beside this one was quicker."""
    try:
        os.link(source, target)
    except FileExistsError:
        return
    except OSError:  # a file system without hard links
        source.rename(target)


def follow_move(uri: str) -> None:
    """After a store was moved with its artifacts, they are looked for and written beside it, not in the old place.

    MLflow keeps absolute places and has no call to change them, so this writes to the database itself.
    """
    store = local_store(uri)
    if store is None:
        return
    here = artifacts_of(store)
    with closing(sqlite3.connect(store, timeout=LOCK_WAIT_S)) as database, database:
        places = database.execute("SELECT DISTINCT artifact_location FROM experiments").fetchall()
        for (old,) in places:
            if old == here.as_uri() or not old.startswith("file:") or not old.endswith(f"/{ARTIFACTS}"):
                continue
            if here.exists() or not Path(url2pathname(urlsplit(old).path)).exists():
                _rewrite(database, old, here.as_uri())


def _rewrite(database: sqlite3.Connection, old: str, new: str) -> None:
    database.execute("UPDATE experiments SET artifact_location = ? WHERE artifact_location = ?", (new, old))
    database.execute(
        "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?) WHERE substr(artifact_uri, 1, ?) = ?",
        (new, len(old) + 1, len(old) + 1, f"{old}/"),
    )
