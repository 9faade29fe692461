"""Checkpoints: written so that a crash at any moment leaves a good one, read without running foreign code.

Layout of `<run>/checkpoints/`: `step_00001000.pt` (tensors and plain types), beside each a manifest
`step_00001000.json` with its sha256, and the pointers `last.json` and `best.json`.
"""

import hashlib
import json
import pickle
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import IO, Any, Literal

import torch
from torch import Tensor

from checkpointing.foreign_files import AGAIN, OTHER, describe_foreign_file
from common.errors import UserError, first_line
from common.files import has_no_end

FORMAT = 1
Kind = Literal["whole", "stripped", "not_finite", "damaged", "missing", "refused", "not_ours"]  # of a .pt file


@dataclass(frozen=True)
class VoiceInfo:
    """What speaking needs beside the weights; kept in every checkpoint."""

    hparams: Mapping[str, Any]  # canonical
    symbols: Sequence[str]
    mel_fingerprint: Mapping[str, Any]
    mel_mean: float
    mel_std: float
    frames_per_symbol: float  # a text's length budget, from the training corpus
    frames_per_step: int | None = None  # r that it speaks with; None: n_frames_per_step
    speakers: Sequence[str] = ()  # in the order of the table's rows
    front_end: Mapping[str, Any] | None = None  # `FrontEnd.to_dict`; None in checkpoints of version 0.1.0
    symbol_counts: Sequence[int] | None = None  # how often training met each of `symbols`
    longest_text: int | None = None  # symbols of the longest training texts

    @classmethod
    def of(cls, saved: Mapping[str, Any]) -> "VoiceInfo":
        """As a checkpoint keeps it; what this version has no use for is left out."""
        return cls(**{name: saved[name] for name in (field.name for field in fields(cls)) if name in saved})


@dataclass
class Checkpoint:
    """One moment of a run. `training` holds optimiser, progress and random states; None where it was stripped."""

    step: int
    model: dict[str, Tensor]
    voice: VoiceInfo
    training: dict[str, Any] | None = field(default=None, repr=False)


def write_content(content: Mapping[str, Any], file: IO[bytes]) -> None:
    try:
        torch.save(content, file)
    except RuntimeError as error:
        # torch's zip writer, closing after a failed write, hides the OSError (such as a full disk) behind its own error
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def all_finite(tensors: Mapping[str, Tensor]) -> bool:
    """Whether no floating-point tensor [...] holds NaN or infinity."""
    # a sum is finite only if its terms are, and needs no memory; a sum that overflows is looked into
    floating = [t for t in tensors.values() if t.is_floating_point()]
    return all(bool(torch.isfinite(t.sum()) or torch.isfinite(t).all()) for t in floating)


def sha256_of(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


class UnreadableCheckpoint(UserError):
    """`problem` is a predicate of the file: "is a web page"; `kind` says it to programs."""

    def __init__(self, path: Path, problem: str, *, kind: Kind, what_next: str) -> None:
        super().__init__(f"{path} {problem}; {what_next}")
        self.problem, self.kind = problem, kind


def read(path: Path, *, mapped: bool = False) -> dict[str, Any]:
    """Tensors and plain types of a .pt file; one that would run code is refused. UnreadableCheckpoint, UserError.

    mapped: tensors stay on disk until they are read.
    """
    if has_no_end(path):
        raise UnreadableCheckpoint(path, "is a pipe or a device, and no file", kind="not_ours", what_next=OTHER)
    try:
        with warnings.catch_warnings():  # of other pickle protocols, which are refused below if they can't be read
            warnings.simplefilter("ignore", UserWarning)
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except FileNotFoundError:
        raise UserError(f"{path}: no such checkpoint; name a .pt file or a run directory") from None
    # LookupError, AttributeError, TypeError: what torch's reader raises on bytes that are no pickle at all
    except (
        pickle.UnpicklingError, OSError, RuntimeError, EOFError, ValueError, LookupError, AttributeError, TypeError
    ) as error:  # fmt: skip
        raise _why_unreadable(path, error) from None
    if not isinstance(content, dict):
        raise UnreadableCheckpoint(
            path, f"holds a {type(content).__name__}, not a checkpoint", kind="not_ours", what_next=OTHER
        )
    return content


def _why_unreadable(path: Path, error: Exception) -> UnreadableCheckpoint:
    try:
        found = describe_foreign_file(path)
    except OSError as refusal:
        problem = f"can't be read ({refusal.strerror or refusal})"
        return UnreadableCheckpoint(path, problem, kind="damaged", what_next="see to its disk and its permissions")
    if found is not None:
        what, advice = found
        return UnreadableCheckpoint(path, f"{what}, not a checkpoint", kind="not_ours", what_next=advice)
    if isinstance(error, pickle.UnpicklingError):
        return UnreadableCheckpoint(
            path,
            "holds more than tensors and plain types and was refused: loading it could run foreign code",
            kind="refused",
            what_next="save its state_dict alone where you trust it, and load that",
        )
    reason = first_line(error) if isinstance(error, RuntimeError | OSError) else "its bytes are no PyTorch file"
    return UnreadableCheckpoint(path, f"is not a readable checkpoint ({reason})", kind="damaged", what_next=AGAIN)


def read_voice(path: Path) -> VoiceInfo | None:
    """What a checkpoint of ours keeps beside the weights, which stay on disk; None for files of others."""
    content = read(path, mapped=True)
    return VoiceInfo.of(content["voice"]) if content.get("format") == FORMAT else None


def load(path: Path) -> Checkpoint:
    """A checkpoint of ours, verified against its manifest where there is one."""
    if path.with_suffix(".json").exists() and (problem := problem_of(path)):
        raise UserError(f"{path} {problem}: it is damaged; use an older one of {path.parent}")
    content = read(path)
    if content.get("format") != FORMAT:
        raise UserError(f"{path} is not a checkpoint of this trainer (format {content.get('format')!r}, not {FORMAT})")
    return Checkpoint(content["step"], content["model"], VoiceInfo.of(content["voice"]), content["training"])


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
