"""A voice in one file: weights as safetensors, and in its header what speaking needs, and a card, as JSON. No code."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from checkpointing.checkpoint_file import Checkpoint, VoiceInfo
from checkpointing.weights import TRAINING_PARTS
from common.errors import UserError
from common.files import has_no_end, write_atomic

SUFFIX = ".safetensors"
FORMAT = "tacotron2 voice"
VERSION = 1
INSTALL = "needs safetensors: pip install -r requirements-export.txt"


def write_voice(path: Path, checkpoint: Checkpoint, card: Mapping[str, Any]) -> int:
    """What training alone needs is left out. -> bytes. UserError if safetensors is missing, OSError from the disk."""
    try:
        from safetensors.torch import save
    except ImportError:
        raise UserError(f"{path} {INSTALL}") from None
    voice = asdict(checkpoint.voice)
    metadata = {
        "format": FORMAT,
        "version": str(VERSION),
        "step": str(checkpoint.step),
        "voice": json.dumps(voice, sort_keys=True),
        "card": json.dumps(dict(card), sort_keys=True),
    }
    content = save(speaking_weights(checkpoint.model), metadata)
    write_atomic(path, content)
    return len(content)


def speaking_weights(model: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors [...] by name, without recogniser and coarse decoder, each with memory of its own."""
    return {name: tensor.detach().clone() for name, tensor in model.items() if not name.startswith(TRAINING_PARTS)}


def read_voice(path: Path) -> Checkpoint:
    """UserError if it is no exported voice, is damaged, or is of a newer version."""
    metadata, model = _content(path)
    if metadata.get("format") != FORMAT:
        raise UserError(f"{path} holds tensors, but is no voice that export.py wrote")
    if metadata.get("version") != str(VERSION):
        found = metadata.get("version")
        raise UserError(f"{path} has version {found}, and this program reads {VERSION}; use a newer one")
    try:
        return Checkpoint(int(metadata["step"]), model, VoiceInfo(**json.loads(metadata["voice"])))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: its description of the voice is damaged ({error}); export it again") from None


def read_card(path: Path) -> dict[str, Any]:
    """The card alone. UserError as `read_voice`."""
    return dict(json.loads(_content(path, with_tensors=False)[0].get("card", "{}")))


def _content(path: Path, *, with_tensors: bool = True) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        raise UserError(f"{path} {INSTALL}") from None
    if has_no_end(path):
        raise UserError(f"{path} is a pipe or a device, and no file; name the voice itself")
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys() if with_tensors else ()
            return dict(file.metadata() or {}), {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError, RuntimeError) as error:
        raise UserError(f"{path} is not a readable voice ({error}); export it again") from None


def is_exported(path: Path) -> bool:
    return path.suffix.lower() == SUFFIX
