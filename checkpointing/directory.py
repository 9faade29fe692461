"""The checkpoints of a run: names, the pointers `last` and `best`, rotation, quarantine."""

import json
import os
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from checkpointing.checkpoint_file import (
    FORMAT,
    Checkpoint,
    Kind,
    UnreadableCheckpoint,
    all_finite,
    problem_of,
    read,
    sha256_of,
    write_content,
)
from common.errors import NothingToRecover, UserError
from common.files import write_atomic
from common.log import LOG

NAME = re.compile(r"step_(\d{8})\.pt")
CLEAREST, LISTENING = "clearest", "listening"  # pointers of the listener: whom it understood best, whom it hears
NOT_OURS = "is no checkpoint of this trainer"


def checkpoint_path(directory: Path, step: int) -> Path:
    return directory / f"step_{step:08d}.pt"


def save(checkpoint: Checkpoint, directory: Path) -> Path:
    """Writes `step_<step>.pt` and makes it `last`. The weights must be finite.

    Temp file in the same directory -> fsync -> manifest with sha256 -> fsync of the directory -> rename -> fsync of the
    directory -> pointer.
    Raises OSError (disk full and the like) with the older checkpoints untouched.
    """
    assert all_finite(checkpoint.model), "a checkpoint with non-finite weights would poison every restart"
    directory.mkdir(parents=True, exist_ok=True)
    path = checkpoint_path(directory, checkpoint.step)
    content = {"format": FORMAT, **{name: getattr(checkpoint, name) for name in ("step", "model", "training")}}
    content["voice"] = dict(vars(checkpoint.voice))
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as f:
            write_content(content, f)
            f.flush()
            os.fsync(f.fileno())
        manifest: dict[str, Any] = {"sha256": sha256_of(temporary), "bytes": temporary.stat().st_size}
        if path.exists():  # the same step again: until the rename, the manifest must also vouch for the old file
            manifest["replaces"] = {"sha256": sha256_of(path), "bytes": path.stat().st_size}
        write_atomic(path.with_suffix(".json"), json.dumps(manifest) + "\n")
        _fsync_directory(directory)  # or a power cut might leave the new file with the old manifest
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _fsync_directory(directory)
    point(directory, "last", path)
    return path


def _fsync_directory(directory: Path) -> None:
    try:
        descriptor = os.open(directory, os.O_RDONLY)
    except PermissionError:
        if hasattr(os, "O_DIRECTORY"):
            raise
        return  # Windows opens no folders, and keeps the order of renames by itself
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def point(directory: Path, pointer: str, path: Path) -> None:
    """Makes `last` or `best` name a checkpoint."""
    write_atomic(directory / f"{pointer}.json", json.dumps({"file": path.name}) + "\n")


def pointed(directory: Path, pointer: str) -> Path | None:
    """The file a pointer names, if both exist."""
    try:
        content = json.loads((directory / f"{pointer}.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):  # ValueError: damaged, be it the JSON or its encoding
        return None
    path = directory / str(content.get("file", ""))
    return path if path.is_file() else None


def all_checkpoints(directory: Path) -> list[Path]:
    """By step, newest first."""
    if not directory.is_dir():
        return []
    return sorted((p for p in directory.iterdir() if NAME.fullmatch(p.name) and not p.is_dir()), reverse=True)


def newest_good(directory: Path) -> Path | None:
    """The newest checkpoint that its manifest confirms. Others are passed over with a warning, never deleted."""
    for path in all_checkpoints(directory):
        problem = problem_of(path)
        if problem is None:
            return path
        LOG.warning("%s %s; falling back to an older checkpoint", path, problem)
    return None


@dataclass(frozen=True)
class CheckpointStatus:
    """What a file of a checkpoint directory is good for. `problem`: a predicate, None where training can go on."""

    path: Path
    step: int | None
    n_bytes: int
    kind: Kind
    problem: str | None = None


def status_of(path: Path) -> CheckpointStatus:
    """Manifest, readability, and whether every number is finite: all that can be known without training."""
    match = NAME.fullmatch(path.name)
    step = int(match[1]) if match else None
    if not path.exists():
        return CheckpointStatus(path, step, 0, "missing", "is a link to nothing")
    n_bytes = path.stat().st_size
    if path.with_suffix(".json").exists() and (damage := problem_of(path)):
        return CheckpointStatus(path, step, n_bytes, "damaged", damage)
    try:
        content = read(path)
        kind, problem = _problem_inside(content)
    except UnreadableCheckpoint as error:
        return CheckpointStatus(path, step, n_bytes, error.kind, error.problem)
    except (LookupError, TypeError, AttributeError):  # of others, that only looks like ours
        return CheckpointStatus(path, step, n_bytes, "not_ours", NOT_OURS)
    return CheckpointStatus(path, content["step"] if problem is None else step, n_bytes, kind, problem)


def _problem_inside(content: Mapping[str, Any]) -> tuple[Kind, str | None]:
    if content.get("format") != FORMAT:
        return "not_ours", NOT_OURS
    if not all_finite(content["model"]):
        return "not_finite", "holds weights that are not finite"
    if content["training"] is None:
        return "stripped", "was stripped of what resuming needs; it can be spoken with"
    states = content["training"]["optimizer"]["state"]
    if not all(all_finite({k: v for k, v in state.items() if isinstance(v, Tensor)}) for state in states.values()):
        return "not_finite", "holds an optimiser state that is not finite"
    return "whole", None


def quarantine(path: Path) -> Path:
    """Moves a file that can't be trusted, and its manifest, to `quarantine/` beside it. -> where"""
    place = path.parent / "quarantine"
    place.mkdir(exist_ok=True)
    target = next(p for i in range(1000) if not (p := place / f"{path.stem}{f'-{i}' if i else ''}.pt").exists())
    if path.with_suffix(".json").exists():
        path.with_suffix(".json").rename(target.with_suffix(".json"))
    path.rename(target)
    return target


def prune(directory: Path, *, keep_last: int, milestone_every: int) -> list[Path]:
    """Deletes all but the newest `keep_last` (never fewer than two), the best, and milestones. -> what went.

    What a killed process left half-written goes too: call it from the one process that saves.
    """
    for half in directory.glob(".step_*.tmp"):
        half.unlink()
    paths = all_checkpoints(directory)
    pointers = ("best", "last", CLEAREST, LISTENING)
    kept = {*paths[: max(keep_last, 2)], *(pointed(directory, pointer) for pointer in pointers)}
    doomed = [p for p in paths if p not in kept and not _is_milestone(p, milestone_every)]
    for path in doomed:
        path.unlink()
        path.with_suffix(".json").unlink(missing_ok=True)
    return doomed


def _is_milestone(path: Path, every: int) -> bool:
    match = NAME.fullmatch(path.name)
    return bool(every and match and int(match[1]) % every == 0)


def resolve(run_or_checkpoint: Path, *, prefer: Literal["best", "newest"] = "best") -> Path:
    """A .pt file as it is; of a run directory its best checkpoint, or the newest whole one. UserError if none.

    Speech wants the best; training goes on from the newest.
    """
    if not run_or_checkpoint.exists():
        raise UserError(f"{run_or_checkpoint}: no such checkpoint; name a .pt file or a run directory")
    if not run_or_checkpoint.is_dir():
        return run_or_checkpoint
    directory = run_or_checkpoint / "checkpoints"
    directory = directory if directory.is_dir() else run_or_checkpoint
    best = pointed(directory, "best")
    if prefer == "best" and best is not None and problem_of(best) is None:
        return best
    newest = newest_good(directory)
    if newest is None:
        raise NothingToRecover(f"{run_or_checkpoint}: no usable checkpoint in it; train first, or name a .pt file")
    return newest
