"""Weights from other files: warm start, NVIDIA's layout, exact loading."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common.errors import UserError

TRAINING_PARTS = ("mmi.", "coarse_decoder.")  # keys of what only training needs: a file may have them or not
RECOGNISER_OUTPUT = "mmi.output."  # a row for each symbol, and one for CTC's blank: begun anew for other symbols
SPEAKERS = "speaker_embedding.table.weight"  # its rows have names of their own, as those of the symbols


def weights_of(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The state dict, tensors [...] by name, of a checkpoint of ours or NVIDIA's (also its DeepLearningExamples), or a
    bare one.
    """
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

    @property
    def is_empty(self) -> bool:
        """Whether nothing of the file is in the model now."""
        return not self.loaded and not self.embedding_rows and not self.speaker_rows

    @property
    def why_empty(self) -> str:
        """Where the keys differ from this model's."""
        if self.unknown:
            beginning, n = Counter(key.partition(".")[0] for key in self.unknown).most_common(1)[0]
            return f"{n} keys begin with '{beginning}.'"
        return str(self).partition("; ")[2] or "it holds no tensors"

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
    unnamed_symbols: Sequence[str] = (),
    speakers: Sequence[str] = (),
) -> WarmStart:
    """Copies every weight that fits. Embedding rows come over by symbol and by speaker, as the file names them.

    unnamed_symbols: those of a file that names none, in the order of its rows; without, ours.
    """
    theirs, ours = weights_of(content), model.state_dict()
    chosen, reshaped = {}, []
    their_symbols = _named_rows(content, "symbols") or list(unnamed_symbols or symbols)
    by_row = {SPEAKERS} if _named_rows(content, "speakers") != list(speakers) else set()
    if their_symbols != list(symbols):
        by_row |= {"embedding.weight", *(key for key in ours if key.startswith(RECOGNISER_OUTPUT))}
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
        rows = _copy_rows(model, "embedding.weight", theirs, their_symbols, symbols)
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
    known = their_rows.keys() & set(their_names[: source.size(0)])
    common = [(i, their_rows[name]) for i, name in enumerate(our_names) if name in known]
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
            f"Train with the hyperparameters that it has, or take over what fits: train.py -c {path} --warm-start"
        )
    model.load_state_dict({**ours, **theirs})
