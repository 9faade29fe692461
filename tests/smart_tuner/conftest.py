"""Whole searches: a stand-in for train.py, so that a trial takes a tenth of a second; the rest is real."""

from collections.abc import Callable
from pathlib import Path

import pytest

import smart_tuner.optimization_engine as engine
from smart_tuner import plan
from smart_tuner.monitors import results
from smart_tuner.settings import Layers, SearchOptions
from support.corpora import TINY
from support.paths import REPOSITORY
from training.options import Options

STAND_IN = REPOSITORY / "tests/support/fake_trainer.py"
SILENT = "validation_attention_analysis=False,"


@pytest.fixture
def quick(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in for trials. Pictures take longest: only where a test's name speaks of them."""
    monkeypatch.setattr(plan, "TRAIN", STAND_IN)
    if "pictures" not in request.node.name:
        monkeypatch.setattr(results, "figures", lambda *_: {})


@pytest.fixture
def tune(tmp_path: Path, corpus_folder: Path, quick: None) -> Callable[..., int]:
    """`tune(n_trials=3)`: the exit code of one launch of the search in tmp_path/output."""
    open_names = ("batch_size=2,", "warmup_steps=0,", SILENT, ",epochs=1000")
    text = TINY + f",training_files={corpus_folder}/train.txt,validation_files={corpus_folder}/val.txt"
    text += f",dataset_path={corpus_folder}"
    for name in open_names:
        assert name in text, name
        text = text.replace(name, "")

    def launch(
        *,
        hparams: str = "",
        file: Path | None = None,
        max_steps: int | None = 6,
        begin: Path | None = None,
        warm_start: bool = False,
        **search,
    ) -> int:
        overrides = ",".join(filter(None, [text, hparams]))
        options = Options(tmp_path / "output", tmp_path / "logs", begin, warm_start=warm_start, max_steps=max_steps)
        layers = Layers(hparams_file=file, overrides=overrides)
        return engine.optimize(layers, options, SearchOptions(**search), repeated=())

    return launch
