"""Recognizer and coarse decoder are training's own: files may lack them, and synthesis is built without them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from checkpointing import checkpoint_file
from checkpointing import directory as checkpoint_dir
from checkpointing import weights as checkpoint_weights
from checkpointing.checkpoint_file import Checkpoint
from hparams import HParams
from model import Tacotron2, without_training_parts
from speech.voice import Speaker
from support.runs import trained
from training.voice_info import voice_info_of

Tiny = Callable[..., HParams]
BOTH = "use_mmi=True,use_ddc=True"


def test_synthesis_leaves_the_training_parts_out(tiny: Tiny, tmp_path: Path) -> None:
    hp = tiny(BOTH)
    trainer = trained(hp, tmp_path / "all", 2)
    corpus = trainer.corpus
    spoken = Speaker.load(tmp_path / "all")
    assert not [name for name in spoken.model.state_dict() if name.startswith(checkpoint_weights.TRAINING_PARTS)]
    weights = {
        n: t for n, t in trainer.model.state_dict().items() if not n.startswith(checkpoint_weights.TRAINING_PARTS)
    }
    plain_hp = without_training_parts(hp)
    checkpoint_dir.save(Checkpoint(2, weights, voice_info_of(plain_hp, corpus)), tmp_path / "plain" / "checkpoints")
    plain = Speaker.load(tmp_path / "plain")
    a, b = (speaker.speak(["a low tone"], n_iter=2)[0] for speaker in (spoken, plain))
    assert (a.wav == b.wav).all() and (a.sample.alignment == b.sample.alignment).all()


@pytest.mark.parametrize(("there", "here"), [("", BOTH), (BOTH, "")])
def test_a_warm_start_crosses_between_with_and_without(tiny: Tiny, tmp_path: Path, there: str, here: str) -> None:
    trained(tiny(there), tmp_path, 1)
    content = checkpoint_file.read(checkpoint_dir.checkpoint_path(tmp_path / "checkpoints", 1))
    model = Tacotron2(tiny(here))
    done = checkpoint_weights.warm_start(model, content, ignore=(), symbols=content["voice"]["symbols"])
    strangers = done.missing if here else done.unknown
    assert strangers and all(name.startswith(checkpoint_weights.TRAINING_PARTS) for name in strangers)
    assert len(done.loaded) == len(Tacotron2(tiny()).state_dict()) and done.reshaped == []


def test_weights_without_training_parts_load_exactly_into_a_model_with_them(tiny: Tiny, tmp_path: Path) -> None:
    source, model = Tacotron2(tiny()), Tacotron2(tiny(BOTH))
    fresh = model.state_dict()["mmi.hidden.weight"].clone()
    checkpoint_weights.load_exactly(model, {"state_dict": source.state_dict()}, path=tmp_path / "nvidia.pt")
    for name, tensor in source.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
    assert torch.equal(model.state_dict()["mmi.hidden.weight"], fresh)


def test_dropped_frames_do_not_reach_the_style(tiny: Tiny) -> None:
    torch.manual_seed(1)
    model = Tacotron2(tiny("use_gst=True,dropout_rate=0")).eval()
    text, mel = torch.tensor([[5, 6, 7]]), torch.randn(1, 8, 12)
    kept, dropped = (
        model(text, torch.tensor([3]), mel, torch.tensor([12]), teacher=teacher)
        for teacher in (None, torch.zeros_like(mel))
    )
    assert kept.style is not None and dropped.style is not None
    assert torch.equal(kept.style.weights, dropped.style.weights)
    assert not torch.equal(kept.mel, dropped.mel)
