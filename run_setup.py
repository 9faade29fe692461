"""The run directory before training starts: where it is, what it already holds, and whether that may go on."""

import fcntl
import json
import os
import platform
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from errors import UserError, report
from files import refusals_explained, write_atomic
from hparams import HParams, Resolved, field_info, hparams_hash
from run_files import read_mapping
from run_log import LOG

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
        raise UserError(report(problems, headline="the run has no place to write to; name another one"))
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
def alone_in(directory: Path, *, ways_on: str) -> Iterator[None]:
    """One process at a time writes into a run directory. The lock goes with the process, however that ends.

    UserError if another one is at work there. An empty directory that this made is gone again at the end.
    """
    is_made_here = not directory.exists()
    with refusals_explained(f"to {directory}", next_step=f"{MAKE_ROOM} -o"):
        directory.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        pid = read_mapping(directory / "run.json", []).get("pid")
        raise UserError(f"{directory}: {f'process {pid}' if pid else 'another'} is at work in it; {ways_on}") from None
    except OSError as error:  # some network file systems have no locks
        LOG.warning("%s can't be locked (%s): see to it that nobody else trains in it", directory, error.strerror)
    try:
        yield
    finally:
        os.close(descriptor)
        if is_made_here:
            with suppress(OSError):  # it holds a run by now
                directory.rmdir()


def is_in_use(directory: Path) -> bool:
    """Whether a process of this machine, or one whose lock is seen here, is at work in a run directory."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no locks here: alone_in has said so
        return False
    finally:
        os.close(descriptor)
    return False


def launch_id() -> str:
    """The same for every automatic restart of one launch, another for each time a person starts the command."""
    elastic = os.environ.get("TORCHELASTIC_RUN_ID")
    if elastic == "none":  # torchrun's name for every launch without --rdzv-id; its own process is what they share
        return f"none-{os.getppid()}"
    return elastic or os.environ.setdefault("TACOTRON2_LAUNCH_ID", uuid.uuid4().hex)


def read_run_info(directory: Path) -> dict[str, Any]:
    """The content of run.json, {} where there is none."""
    path = directory / "run.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:  # of the JSON, or of its encoding
        raise UserError(f"{path} is damaged ({error}); move it away to start anew") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged (no object, a {type(content).__name__}); move it away to start anew")
    return content


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


def is_fresh_start(directory: Path, *, asked: bool) -> bool:
    """--fresh and force_model_reinit act once a launch: an automatic restart finds its own launch id and goes on."""
    return asked and read_run_info(directory).get("launch_id") != launch_id()


def is_demo_wanted(resolved: Resolved, directory: Path, *, is_fresh: bool = False) -> bool:
    """Whether the embedded demo corpus stands in: nothing names data, no default file exists, no other data before."""
    if any(resolved.origins[name] != "default" for name in ("training_files", "validation_files")):
        return False
    hp = resolved.hparams
    if Path(hp.training_files).exists() or Path(hp.validation_files).exists():
        return False
    return is_fresh or read_run_info(directory).get("data", DEMO) == DEMO


def differences(hp: HParams, saved: Mapping[str, Any]) -> dict[str, list[str]]:
    """What differs from a saved run, by what it affects: arch, features, run. Fields that may change are left out."""
    found: dict[str, list[str]] = {"arch": [], "features": [], "run": []}
    for name, value in hp.canonical().items():
        if name in saved and saved[name] != value and not field_info(name).mutable:
            found[field_info(name).affects].append(f"{name}: {saved[name]} there, {value} here")
    return found


def check_resumable(
    hp: HParams, saved: Mapping[str, Any], *, corpus_differs: bool, with_changes: bool, where: Path
) -> None:
    """Refuses to go on with another setting than the saved one, naming every difference and the ways on."""
    found = differences(hp, saved)
    lines = [line for group in found.values() for line in group]
    if corpus_differs:
        lines.append("the training data: other recordings or texts than before")
    if not lines:
        return
    listed = "\n  ".join(lines)
    if found["arch"]:
        raise UserError(
            f"{where} holds a model of another shape:\n  {listed}\n"
            "Ways on: --fresh (the old run is moved aside), another -o, or -c with --warm-start to keep what fits."
        )
    if not with_changes:
        raise UserError(
            f"{where} was trained with other settings:\n  {listed}\n"
            "Ways on: --resume-with-changes (the new ones hold), --fresh (the old run is moved aside), another -o."
        )
    LOG.warning("going on with changed settings:\n  %s", listed)


def write_run_info(directory: Path, hp: HParams, *, data: str, fingerprint: str, mel: Mapping[str, Any]) -> int:
    """Writes hparams.yaml and run.json. -> the number of this attempt, from 1."""
    import torch

    attempt = int(read_run_info(directory).get("attempt", 0)) + 1
    directory.mkdir(parents=True, exist_ok=True)
    write_atomic(directory / "hparams.yaml", yaml.safe_dump(hp.canonical(), sort_keys=False, allow_unicode=True))
    info = {
        "command": [Path(sys.argv[0]).name, *map(without_password, sys.argv[1:])],
        "attempt": attempt,
        "working_directory": os.getcwd(),
        "host": platform.node(),
        "pid": os.getpid(),
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
        "launch_id": launch_id(),
        "data": data,
        "data_fingerprint": fingerprint,
        "mel_fingerprint": dict(mel),
        "git_revision": git_revision(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
    write_atomic(directory / "run.json", json.dumps(info, indent=1, ensure_ascii=False) + "\n")
    return attempt


def without_password(text: str) -> str:
    """A database's address without the user and password that it may hold."""
    return re.sub(r"://[^/@\s]*@", "://***@", text)


def git_revision() -> str | None:
    """Of the trainer's own checkout; None where there is no git or no checkout."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return None
    return done.stdout.strip() or None
