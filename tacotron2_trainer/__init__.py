"""The trainer as an installed package: `from tacotron2_trainer import Voice`.

It owns nothing but the way to the modules, which have the flat names of a checkout (`hparams`, `model`, ...); its
console commands are in `tacotron2_trainer.commands`.
"""

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from common.errors import DataError, UserError
    from corpus.loader import PlannedBatches
    from data_utils import Corpus, load_corpus, plan_batches
    from hparams import HParams, create_hparams
    from loss_function import tacotron2_loss
    from model import Tacotron2
    from player.voice import OnnxVoice
    from speech.voice import Manner, Voice

# Where each name lives; loaded when it is first asked for, as torch takes seconds.
HOMES = {
    "Corpus": "data_utils",
    "DataError": "common.errors",
    "HParams": "hparams",
    "Manner": "speech.voice",
    "OnnxVoice": "player.voice",
    "PlannedBatches": "corpus.loader",
    "Tacotron2": "model",
    "UserError": "common.errors",
    "Voice": "speech.voice",
    "create_hparams": "hparams",
    "load_corpus": "data_utils",
    "plan_batches": "data_utils",
    "tacotron2_loss": "loss_function",
}
__all__ = [
    "Corpus", "DataError", "HParams", "Manner", "OnnxVoice", "PlannedBatches", "Tacotron2", "UserError",
    "Voice", "create_hparams", "load_corpus", "plan_batches", "tacotron2_loss",
]  # fmt: skip


def root() -> Path:
    """The folder of the modules: inside an installed package, else the checkout."""
    here = Path(__file__).resolve().parent
    inside = here / "flat"
    return inside if inside.is_dir() else here.parent


# First, so that no other package's `model` or `text` is taken for ours.
if str(root()) not in sys.path:
    sys.path.insert(0, str(root()))
importlib.import_module("common")  # what libraries must be told before they are loaded


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(HOMES[name]), name)
