"""The blocks of docs/python_api.md run as they are written, one after the other."""

import os
import re
from pathlib import Path
from typing import Any

import pytest

import tacotron2_trainer
from data_utils import load_corpus
from support.corpora import tiny_settings
from support.paths import REPOSITORY
from support.voices import Tiny, save_voice

DOCUMENT = (REPOSITORY / "docs" / "python_api.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", DOCUMENT, re.M | re.S)


def test_the_documented_blocks_run(
    tiny: Tiny, corpus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hp = tiny()
    save_voice(hp, load_corpus(hp), tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"RUN": tmp_path / "run", "HPARAMS": tiny_settings(corpus_folder)}
    assert len(BLOCKS) == 7
    for block in BLOCKS:
        exec(compile(block, "docs/python_api.md", "exec"), names)
    shown = capsys.readouterr().out
    assert Path("hello.wav").stat().st_size > 1000 and "Hello there." in Path("hello.srt").read_text()
    assert "nothing to say" in shown and "5 utterances" in shown
    assert names["seconds"] > 0.2 and len(names["losses"]) == 9 and names["losses"][-1] < names["losses"][0]


def test_the_training_loop_has_the_ten_lines_that_are_promised() -> None:
    loop = next(block for block in BLOCKS if "\nfor batch in" in block).split("\nfor batch in")[1].splitlines()
    assert 8 <= len([line for line in loop if line.startswith("    ")]) <= 10


def test_every_public_name_is_there_and_another_is_an_attribute_error() -> None:
    assert all(getattr(tacotron2_trainer, name) for name in tacotron2_trainer.__all__)
    assert set(tacotron2_trainer.__all__) == set(tacotron2_trainer.HOMES)
    with pytest.raises(AttributeError, match="no attribute 'Voise'; it has Corpus"):
        tacotron2_trainer.Voise  # noqa: B018 - the access is what is tested


def test_the_package_of_a_checkout_is_the_checkout() -> None:
    assert os.path.samefile(tacotron2_trainer.root(), REPOSITORY)
