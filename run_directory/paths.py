"""The run directory before training starts: where it is, what it already holds, and whether that may go on."""

import errno
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from common.errors import UserError, format_problems
from common.files import explain_write_errors
from common.log import LOG
from hparams import HParams
from run_directory.reader import read_mapping
from run_directory.settings_digest import hparams_hash

OWN_FILES = (
    "hparams.yaml",
    "run.json",
    "metrics.jsonl",
    "events.jsonl",
    "checkpoints",
    "samples",
    "alignments",
    "debug",
    "mlflow.json",
    "report.html",
    "recovery.json",
    "diagnosis.json",
)
LOCK_FILE = "run.lock"
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)
DEMO = "demo corpus"
MAKE_ROOM = "free space there (df -h), or name another"


@dataclass(frozen=True)
class RunPaths:
    directory: Path
    log_directory: Path
    is_chosen: bool  # by -o; else derived from the hyperparameters


def run_paths(output: Path | None, logs: Path | None, hp: HParams) -> RunPaths:
    """As given, or one directory for each setting of the hyperparameters, so that the same command resumes it."""
    name = f"run-{hparams_hash(hp)}"
    paths = RunPaths(output or Path("output") / name, logs or Path("logs") / name, output is not None)
    problems = [*_no_place("-o", paths.directory), *_no_place("-l", paths.log_directory)]
    if problems:
        raise UserError(format_problems(problems, headline="the run has no place to write to; name another one"))
    if output is None or logs is None:
        LOG.warning(
            "no -o or -l given: this setting's own run is %s, its logs %s", paths.directory, paths.log_directory
        )
    return paths


def _no_place(switch: str, directory: Path) -> list[str]:
    """Why nothing can be written into a directory that may not exist yet: [] if nothing speaks against it."""
    there = next(place for place in (directory, *directory.absolute().parents) if place.exists())
    if not there.is_dir():
        return [f"{switch} {directory}: {there} is a file, not a directory"]
    return [] if os.access(there, os.W_OK | os.X_OK) else [f"{switch} {directory}: no permission to write in {there}"]


@contextmanager
def exclusive_lock(directory: Path, *, what_next: str) -> Iterator[None]:
    """One process at a time writes into a run directory. The lock goes with the process, however that ends.

    UserError if another one is at work there. An empty directory that this made is gone again at the end.
    """
    is_made_here = not directory.exists()
    lock = FileLock(directory / LOCK_FILE, timeout=0)
    with explain_write_errors(f"to {directory}", next_step=f"{MAKE_ROOM} -o"):
        directory.mkdir(parents=True, exist_ok=True)
        _acquire(lock, directory, what_next)
    try:
        yield
    finally:
        if is_made_here and [path.name for path in directory.iterdir()] == [LOCK_FILE]:
            (directory / LOCK_FILE).unlink()
            directory.rmdir()
        lock.release()


def _acquire(lock: BaseFileLock, directory: Path, what_next: str) -> None:
    try:
        acquire_where_possible(lock, directory)
    except Timeout:
        pid = read_mapping(directory / "run.json", []).get("pid")
        raise UserError(
            f"{directory}: {f'process {pid}' if pid else 'another'} is at work in it; {what_next}"
        ) from None


def acquire_where_possible(lock: BaseFileLock, directory: Path) -> None:
    """Raises Timeout if another has the lock of this directory. Goes on with a warning where nothing can be locked."""
    try:
        lock.acquire()
    except Timeout:  # an OSError itself
        raise
    except (NotImplementedError, OSError) as error:  # some network file systems have no locks
        if isinstance(error, OSError) and error.errno not in NO_LOCKS:
            raise
        LOG.warning("%s can't be locked (%s): see to it that nobody else trains in it", directory, error)


def is_in_use(directory: Path) -> bool:
    """Whether a process of this machine, or one whose lock is seen here, is at work in a run directory."""
    if not (directory / LOCK_FILE).exists():
        return False
    try:
        with FileLock(directory / LOCK_FILE, timeout=0):
            return False
    except Timeout:
        return True
    except (NotImplementedError, OSError):  # no locks here: exclusive_lock has said so; or nothing may be written
        return False


def move_aside(directory: Path, names: Sequence[str] = OWN_FILES) -> Path | None:
    """What an earlier run left goes to `previous/<time>/`, never deleted. -> where, or None if there was nothing."""
    found = [directory / name for name in names if (directory / name).exists()]
    if not found:
        return None
    now = time.strftime("%Y%m%d-%H%M%S")
    places = (now, *(f"{now}-{i}" for i in range(2, 1000)))  # more than one a second
    aside = next(d for d in (directory / "previous" / place for place in places) if not d.exists())
    aside.mkdir(parents=True)
    for path in found:
        path.rename(aside / path.name)
    return aside
