"""A start from weights of another run: mels of another kind, layers left out, what is not used is said."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from checkpointing import checkpoint_file
from checkpointing import directory as checkpoint_dir
from common.errors import UserError
from hparams import HParams, resolve_hparams
from run_directory.paths import RunPaths
from run_directory.run_info import read_run_info
from speech.voice import Speaker
from support.runs import run_to
from training.options import Options
from training.resume import inspect_run

TWO_STEPS = Options(max_steps=2)


def saved_run(hp: HParams, directory: Path) -> Path:
    run_to(hp, directory, TWO_STEPS)
    return checkpoint_dir.checkpoint_path(directory / "checkpoints", 2)


def rewritten(path: Path, target: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of a checkpoint, without manifest, after `change` of its content."""
    content = checkpoint_file.read(path)
    change(content)
    torch.save(content, target)
    return target


def test_a_warm_start_from_other_mels_warns_of_every_difference(
    tmp_path: Path, tiny: Callable[..., HParams], caplog: pytest.LogCaptureFixture
) -> None:
    source = saved_run(tiny(), tmp_path / "a")
    other = tiny("mel_fmin=200,mel_fmax=3000")
    with caplog.at_level(logging.WARNING, "tacotron2"):
        assert run_to(other, tmp_path / "b", Options(checkpoint=source, warm_start=True, max_steps=1)) == 1
    assert "was trained on other mels" in caplog.text
    assert "mel_fmin: 200.0 here, 0.0 there" in caplog.text and "mel_fmax: 3000.0 here" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING, "tacotron2"):
        run_to(tiny(), tmp_path / "c", Options(checkpoint=source, warm_start=True, max_steps=1))
    assert "other mels" not in caplog.text


def newer_mels(content: dict[str, Any]) -> None:
    content["voice"]["mel_fingerprint"]["format_version"] = 99


def test_a_checkpoint_of_another_mel_format_is_not_gone_on_from(tmp_path: Path, tiny: Callable[..., HParams]) -> None:
    other = rewritten(saved_run(tiny(), tmp_path / "a"), tmp_path / "other.pt", newer_mels)
    with pytest.raises(UserError, match="mels of format version 99, and this trainer has version 1"):
        run_to(tiny(), tmp_path / "b", Options(checkpoint=other, max_steps=3))


def test_a_voice_of_another_mel_format_does_not_speak(tmp_path: Path, tiny: Callable[..., HParams]) -> None:
    other = rewritten(saved_run(tiny(), tmp_path / "a"), tmp_path / "other.pt", newer_mels)
    with pytest.raises(UserError, match="mels of format version 99, and this trainer has version 1"):
        Speaker.load(other)


def under_another_name(content: dict[str, Any]) -> None:
    content["model"] = {f"tacotron.{key}": value for key, value in content["model"].items()}
    del content["format"]


@pytest.mark.parametrize("beginning", [{"checkpoint": Path("nowhere.pt")}, {"base_steps": 9}])
def test_a_beginning_that_a_run_that_goes_on_does_not_use_is_told(
    tmp_path: Path, tiny: Callable[..., HParams], beginning: dict[str, Any]
) -> None:
    hp = tiny()
    saved_run(hp, tmp_path / "a")
    paths, settings = RunPaths(tmp_path / "a", tmp_path / "logs", True), resolve_hparams()
    told = f"{'-c nowhere.pt' if 'checkpoint' in beginning else '--from-base'} is not used: the run in "
    inspect_run(paths, settings, Options(**beginning))
    said = (tmp_path / "logs" / "train.log").read_text()
    assert told in said and "add --fresh" in said
    command = ["train.py", "-c", "nowhere.pt", "--from-base"]  # it began so
    (tmp_path / "a" / "run.json").write_text(json.dumps({**read_run_info(tmp_path / "a"), "command": command}))
    inspect_run(paths, settings, Options(**beginning))
    inspect_run(paths, settings, Options(checkpoint=tmp_path / "a"))
    assert (tmp_path / "logs" / "train.log").read_text().count("is not used") == 1


def test_a_warm_start_that_loads_nothing_is_refused(tmp_path: Path, tiny: Callable[..., HParams]) -> None:
    hp = tiny()
    other = rewritten(saved_run(hp, tmp_path / "a"), tmp_path / "other.pt", under_another_name)
    with pytest.raises(UserError, match=r"no weight of .*other.pt fits \(\d+ keys begin with 'tacotron\.'\)"):
        run_to(hp, tmp_path / "b", Options(checkpoint=other, warm_start=True, max_steps=1))
    assert not (tmp_path / "b" / "run.json").exists()


@pytest.mark.parametrize("layers", ["[embeding.weight]", "[embedding.weight,postnet.convolutoins.0.0.conv.weight]"])
def test_a_layer_to_ignore_that_is_nowhere_is_named_with_the_nearest(
    tmp_path: Path, tiny: Callable[..., HParams], caplog: pytest.LogCaptureFixture, layers: str
) -> None:
    source = saved_run(tiny(), tmp_path / "a")
    with caplog.at_level(logging.WARNING, "tacotron2"):
        run_to(
            tiny(f"ignore_layers={layers}"),
            tmp_path / "b",
            Options(checkpoint=source, warm_start=True, max_steps=1),
        )
    wrong = layers.strip("[]").split(",")[-1]
    assert f"ignore_layers: neither {source} nor this model has {wrong}; the nearest is " in caplog.text


def test_a_switch_that_leaves_out_what_the_file_lacks_is_told(
    tmp_path: Path, tiny: Callable[..., HParams], caplog: pytest.LogCaptureFixture
) -> None:
    source = saved_run(tiny(), tmp_path / "a")
    options = Options(checkpoint=source, warm_start=True, ignore_prefixes=("gst.",), max_steps=1)
    with caplog.at_level(logging.WARNING, "tacotron2"):
        run_to(tiny(), tmp_path / "b", options)
    assert f"{source} has no weights that begin with gst., so there was nothing to leave out" in caplog.text
