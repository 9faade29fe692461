"""A voice in one safetensors file comes back as it was, and what is no such file is refused."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from checkpointing import exported_voice
from checkpointing.checkpoint_file import Checkpoint
from common.errors import UserError
from support.checkpoints import VOICE, made

CARD = {"name": "anna", "licence": "CC0"}


def test_weights_voice_and_card_come_back_without_what_training_needs(tmp_path: Path) -> None:
    checkpoint = made(7)
    checkpoint.model["mmi.weight"] = torch.ones(3)
    exported_voice.write_voice(tmp_path / "a.safetensors", checkpoint, CARD)
    back = exported_voice.read_voice(tmp_path / "a.safetensors")
    assert (back.step, back.training) == (7, None)
    assert asdict(back.voice) == json.loads(json.dumps(asdict(VOICE)))
    assert set(back.model) == set(checkpoint.model) - {"mmi.weight"}
    assert all(torch.equal(back.model[name], checkpoint.model[name]) for name in back.model)
    assert exported_voice.read_card(tmp_path / "a.safetensors") == CARD


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (None, "no voice that export.py wrote"),
        ({"format": "pt"}, "no voice that export.py wrote"),
        ({"format": exported_voice.FORMAT, "version": "9"}, "has version 9"),
        ({"format": exported_voice.FORMAT, "version": "1"}, "its description of the voice is damaged"),
        ({"format": exported_voice.FORMAT, "version": "1", "step": "1", "voice": "["}, "is damaged"),
        ({"format": exported_voice.FORMAT, "version": "1", "step": "1", "voice": '{"extra": 1}'}, "is damaged"),
    ],
)
def test_tensors_of_others_are_refused(tmp_path: Path, metadata: dict[str, str] | None, message: str) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(save({"a": torch.ones(2)}, metadata))
    with pytest.raises(UserError, match=message):
        exported_voice.read_voice(path)


@pytest.mark.parametrize("damage", ["cut", "lying", "text", "absent"])
def test_damaged_files_are_refused_in_one_message(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.safetensors"
    exported_voice.write_voice(path, Checkpoint(1, {"a": torch.ones(99)}, VOICE), CARD)
    content = path.read_bytes()
    damaged = {"cut": content[:-50], "lying": b"\xff" * 8 + content[8:], "text": b"hello", "absent": None}[damage]
    path.unlink()
    if damaged is not None:
        path.write_bytes(damaged)
    with pytest.raises(UserError, match="is not a readable voice"):
        exported_voice.read_voice(path)
