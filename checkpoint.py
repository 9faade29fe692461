"""Checkpoints: written so that a crash at any moment leaves a good one, read without running foreign code.

Layout of `<run>/checkpoints/`: `step_00001000.pt` (tensors and plain types), beside each a manifest
`step_00001000.json` with its sha256, and the pointers `last.json` and `best.json`.
"""

import hashlib
import json
import os
import pickle
import re
import uuid
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn

from errors import NothingToRecover, UserError
from files import write_atomic
from run_log import LOG

FORMAT = 1
TRAINING_PARTS = ("mmi.", "coarse_decoder.")  # keys of what only training needs: a file may have them or not
SPEAKERS = "speaker_embedding.table.weight"  # its rows have names of their own, as those of the symbols
NAME = re.compile(r"step_(\d{8})\.pt")


@dataclass(frozen=True)
class Voice:
    """What speaking needs beside the weights; kept in every checkpoint."""

    hparams: Mapping[str, Any]  # canonical
    symbols: Sequence[str]
    mel_fingerprint: Mapping[str, Any]
    mel_mean: float
    mel_std: float
    frames_per_symbol: float  # a text's length budget, from the training corpus
    budget_offset: int
    frames_per_step: int | None = None  # r that it speaks with; None: n_frames_per_step
    speakers: Sequence[str] = ()  # in the order of the table's rows


@dataclass
class Checkpoint:
    """One moment of a run. `training` holds optimiser, progress and random states; None where it was stripped."""

    step: int
    model: dict[str, Tensor]
    voice: Voice
    training: dict[str, Any] | None = field(default=None, repr=False)


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
            _write(content, f)
            f.flush()
            os.fsync(f.fileno())
        manifest = {"sha256": sha256_of(temporary), "bytes": temporary.stat().st_size, "step": checkpoint.step}
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


def _write(content: Mapping[str, Any], file: IO[bytes]) -> None:
    try:
        torch.save(content, file)
    except RuntimeError as error:
        # torch's zip writer, closing after a failed write, hides the OSError (such as a full disk) behind its own error
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def all_finite(tensors: Mapping[str, Tensor]) -> bool:
    # a sum is finite only if its terms are, and needs no memory; a sum that overflows is looked into
    floating = [t for t in tensors.values() if t.is_floating_point()]
    return all(bool(torch.isfinite(t.sum()) or torch.isfinite(t).all()) for t in floating)


def sha256_of(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _fsync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def point(directory: Path, pointer: str, path: Path, **more: Any) -> None:
    """Makes `last` or `best` name a checkpoint."""
    write_atomic(directory / f"{pointer}.json", json.dumps({"file": path.name, **more}) + "\n")


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


def problem_of(path: Path) -> str | None:
    """Why a checkpoint can't be trusted, by its manifest; None if it is whole."""
    if not path.exists():
        return "is a link to nothing"
    try:
        manifest = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        versions = (manifest, manifest.get("replaces", {}))
        if path.stat().st_size not in [version.get("bytes") for version in versions]:
            return f"has {path.stat().st_size} bytes, its manifest says {manifest.get('bytes')}"
        if sha256_of(path) not in [version.get("sha256") for version in versions]:
            return "differs from its manifest's sha256"
    except FileNotFoundError:
        return "has no manifest"
    except (ValueError, AttributeError):  # no JSON, or no object
        return "has an unreadable manifest"
    except OSError as error:  # a disk that fails
        return f"can't be read ({error.strerror})"
    return None


def newest_good(directory: Path) -> Path | None:
    """The newest checkpoint that its manifest confirms. Others are passed over with a warning, never deleted."""
    for path in all_checkpoints(directory):
        problem = problem_of(path)
        if problem is None:
            return path
        LOG.warning("%s %s; falling back to an older checkpoint", path, problem)
    return None


@dataclass(frozen=True)
class Verdict:
    """What a file of a checkpoint directory is good for. `problem` is None for one that training can go on from."""

    path: Path
    step: int | None
    n_bytes: int
    problem: str | None


def verdict(path: Path) -> Verdict:
    """Manifest, readability, and whether every number is finite: all that can be known without training."""
    match = NAME.fullmatch(path.name)
    step = int(match[1]) if match else None
    n_bytes = path.stat().st_size if path.exists() else 0
    problem = problem_of(path) if path.with_suffix(".json").exists() or not path.exists() else None
    if problem is None:
        try:
            content = read(path)
            problem = _problem_inside(content)
            step = content["step"] if problem is None else step
        except UserError as error:
            problem = str(error).removeprefix(f"{path} ").partition(". ")[0]
        except (LookupError, TypeError, AttributeError):  # of others, that only looks like ours
            problem = "is no checkpoint of this trainer"
    return Verdict(path, step, n_bytes, problem)


def _problem_inside(content: Mapping[str, Any]) -> str | None:
    if content.get("format") != FORMAT:
        return "is no checkpoint of this trainer"
    if not all_finite(content["model"]):
        return "holds weights that are not finite"
    if content["training"] is None:
        return "was stripped of what resuming needs; it can be spoken with"
    states = content["training"]["optimizer"]["state"]
    if not all(all_finite({k: v for k, v in state.items() if isinstance(v, Tensor)}) for state in states.values()):
        return "holds an optimiser state that is not finite"
    return None


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
    kept = set(paths[: max(keep_last, 2)]) | {pointed(directory, "best"), pointed(directory, "last")}
    doomed = [p for p in paths if p not in kept and not _is_milestone(p, milestone_every)]
    for path in doomed:
        path.unlink()
        path.with_suffix(".json").unlink(missing_ok=True)
    return doomed


def _is_milestone(path: Path, every: int) -> bool:
    match = NAME.fullmatch(path.name)
    return bool(every and match and int(match[1]) % every == 0)


def read(path: Path) -> dict[str, Any]:
    """Tensors and plain types of a .pt file. A file that would run code is refused. UserError if unreadable."""
    try:
        with warnings.catch_warnings():  # of other pickle protocols, which are refused below if they can't be read
            warnings.simplefilter("ignore", UserWarning)
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such checkpoint; name a .pt file or a run directory") from None
    except pickle.UnpicklingError:
        raise UserError(
            f"{path} holds more than tensors and plain types and was refused: loading it could run foreign code. "
            "Save its state_dict alone where you trust it, and load that."
        ) from None
    # LookupError, AttributeError, TypeError: what torch's reader raises on bytes that are no pickle at all
    except (OSError, RuntimeError, EOFError, ValueError, LookupError, AttributeError, TypeError) as error:
        first_sentence = str(error).partition("\n")[0].partition(". ")[0]
        reason = first_sentence if isinstance(error, (OSError, RuntimeError)) else "its bytes are no PyTorch file"
        raise UserError(f"{path} is not a readable checkpoint ({reason})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}, not a checkpoint")
    return content


def load(path: Path) -> Checkpoint:
    """A checkpoint of ours, verified against its manifest where there is one."""
    if path.with_suffix(".json").exists() and (problem := problem_of(path)):
        raise UserError(f"{path} {problem}: it is damaged; use an older one of {path.parent}")
    content = read(path)
    if content.get("format") != FORMAT:
        raise UserError(f"{path} is not a checkpoint of this trainer (format {content.get('format')!r}, not {FORMAT})")
    return Checkpoint(content["step"], content["model"], Voice(**content["voice"]), content["training"])


def resolve(run_or_checkpoint: Path) -> Path:
    """A .pt file as it is; of a run directory its best checkpoint, else the last good one. UserError if none."""
    if not run_or_checkpoint.exists():
        raise UserError(f"{run_or_checkpoint}: no such checkpoint; name a .pt file or a run directory")
    if not run_or_checkpoint.is_dir():
        return run_or_checkpoint
    directory = run_or_checkpoint / "checkpoints"
    directory = directory if directory.is_dir() else run_or_checkpoint
    best = pointed(directory, "best")
    if best is not None and problem_of(best) is None:
        return best
    newest = newest_good(directory)
    if newest is None:
        raise NothingToRecover(f"{run_or_checkpoint}: no usable checkpoint in it; train first, or name a .pt file")
    return newest


def weights_of(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The state dict in a checkpoint of ours or NVIDIA's (also its DeepLearningExamples), or a bare one."""
    for key in ("model", "state_dict"):
        if isinstance(content.get(key), dict):
            content = content[key]
            break
    # data-parallel wrappers leave their name in front of every key
    return {re.sub(r"^(module\.)(1\.)?", "", k): v for k, v in content.items() if isinstance(v, Tensor)}


@dataclass(frozen=True)
class WarmStart:
    """What a warm start did with each tensor."""

    loaded: list[str]
    ignored: list[str]  # by `ignore_layers`
    missing: list[str]  # kept at their initial value
    reshaped: list[str]  # other shape there than here; kept at their initial value
    unknown: list[str]  # in the file, not in this model
    embedding_rows: int = 0  # copied by symbol
    speaker_rows: int = 0  # copied by name

    def __str__(self) -> str:
        parts = [f"{len(self.loaded)} tensors loaded"]
        for name in ("ignored", "missing", "reshaped", "unknown"):
            keys = getattr(self, name)
            if keys:
                parts.append(f"{len(keys)} {name} ({', '.join(keys[:4])}{', ...' if len(keys) > 4 else ''})")
        if self.embedding_rows:
            parts.append(f"{self.embedding_rows} embedding rows copied by symbol")
        if self.speaker_rows:
            parts.append(f"{self.speaker_rows} speakers copied by name")
        return "; ".join(parts)


def keys_under(prefixes: Sequence[str], content: Mapping[str, Any]) -> list[str]:
    """The keys of a checkpoint's weights that begin so, for `ignore` of a warm start."""
    return [key for key in weights_of(content) if key.startswith(tuple(prefixes))]


def warm_start(
    model: nn.Module,
    content: Mapping[str, Any],
    *,
    ignore: Sequence[str],
    symbols: Sequence[str],
    speakers: Sequence[str] = (),
) -> WarmStart:
    """Copies every weight that fits. Embedding rows come over by symbol and by speaker, as the file names them."""
    theirs, ours = weights_of(content), model.state_dict()
    chosen, reshaped = {}, []
    voice = content.get("voice")
    by_row = {SPEAKERS} if _named_rows(content, "speakers") != list(speakers) else set()
    if isinstance(voice, dict) and list(voice["symbols"]) != list(symbols):
        by_row.add("embedding.weight")
    for key, tensor in theirs.items():
        if key in ignore or key not in ours or key in by_row:
            continue
        if tensor.shape == ours[key].shape:
            chosen[key] = tensor
        else:
            reshaped.append(key)
    model.load_state_dict({**ours, **chosen})
    rows = 0
    if "embedding.weight" not in chosen:
        rows = _copy_rows(model, "embedding.weight", theirs, _named_rows(content, "symbols"), symbols)
    speaker_rows = 0
    if SPEAKERS in by_row and SPEAKERS not in ignore:
        speaker_rows = _copy_rows(model, SPEAKERS, theirs, _named_rows(content, "speakers"), speakers)
    return WarmStart(
        loaded=sorted(chosen),
        ignored=sorted(k for k in theirs if k in ignore and k in ours),
        missing=sorted(k for k in ours if k not in theirs),
        reshaped=sorted(reshaped),
        unknown=sorted(k for k in theirs if k not in ours),
        embedding_rows=rows,
        speaker_rows=speaker_rows,
    )


def _named_rows(content: Mapping[str, Any], what: str) -> list[str]:
    """The names of a table's rows, `symbols` or `speakers`, where the file tells."""
    voice = content.get("voice")
    return list(voice.get(what, ())) if isinstance(voice, dict) else []


def _copy_rows(
    model: nn.Module, key: str, theirs: Mapping[str, Tensor], their_names: Sequence[str], our_names: Sequence[str]
) -> int:
    """Copies the rows of the table `key` that both sides have a name for. -> how many"""
    if key not in theirs or not our_names:
        return 0
    table, source = model.get_parameter(key), theirs[key]
    if source.size(1) != table.size(1):
        return 0
    their_rows = {name: i for i, name in enumerate(their_names)}
    common = [(i, their_rows[name]) for i, name in enumerate(our_names) if name in their_rows]
    with torch.no_grad():
        for i, j in common:
            table[i] = source[j]
    return len(common)


def load_exactly(model: nn.Module, content: Mapping[str, Any], *, path: Path) -> None:
    """All weights, or a UserError that names what does not fit and the way on. Training's own parts may be missing."""
    ours = model.state_dict()
    theirs = {k: v for k, v in weights_of(content).items() if k in ours or not k.startswith(TRAINING_PARTS)}
    problems = [f"missing: {k}" for k in ours if k not in theirs and not k.startswith(TRAINING_PARTS)]
    problems += [f"not in this model: {k}" for k in theirs if k not in ours]
    problems += [
        f"{k} is {tuple(theirs[k].shape)} there, {tuple(v.shape)} here"
        for k, v in ours.items()
        if k in theirs and theirs[k].shape != v.shape
    ]
    if problems:
        shown = "\n  ".join(problems[:10])
        raise UserError(
            f"{path} does not fit this model in {len(problems)} places:\n  {shown}\n"
            "Give the hyperparameters it was trained with, or --warm-start to take over what fits."
        )
    model.load_state_dict({**ours, **theirs})
