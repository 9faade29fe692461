"""The documented training commands, a few steps each, from an empty folder to what they leave behind."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from math import isfinite
from pathlib import Path

import pytest

from run_directory.metrics_log import read_metrics
from support.commands import (
    REPOSITORY,
    SAMPLING_RATE,
    TEXTS,
    TINY,
    assert_refused,
    checkpoints,
    run,
    tiny_arguments,
    train_tiny,
    write_recordings,
)

pytestmark = pytest.mark.spec

BASIC = ("-o", "output", "-l", "logs", "--hparams", "learning_rate=1e-3,batch_size=32,use_guided_attn=True")
SMALLER = TINY.replace("batch_size=2,", "").replace("mlflow_logging=False,", "")
KATHLEEN = Path(os.environ.get("TACOTRON2_TEST_DATA", REPOSITORY.parent / "shared" / "data" / "kathleen"))


@pytest.fixture(scope="module")
def basic_run(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Iterator[tuple[Path, str]]:
    """The documented basic command after two steps, and what it said. Its checkpoint takes 340 MB."""
    cwd = tmp_path_factory.mktemp("basic")
    done = run("train.py", *BASIC, "--max-steps", "2", cwd=cwd, cache=cache)
    assert done.returncode == 0, done.stderr
    yield cwd, done.stderr
    shutil.rmtree(cwd / "output" / "checkpoints")


# -- the basic command, on the demo corpus ----------------------------------------------------------------------------


def test_the_basic_command_trains_on_the_demo_corpus_and_says_so(basic_run: tuple[Path, str]) -> None:
    cwd, said = basic_run
    assert "no dataset is configured: training on the embedded demo corpus" in said
    assert said.count("THESE ARE NOT YOUR RECORDINGS") == 2  # at the start, and again at the end
    assert json.loads((cwd / "output" / "run.json").read_text())["data"] == "demo corpus"


def test_the_basic_command_leaves_a_whole_run_behind(basic_run: tuple[Path, str]) -> None:
    output, logs = basic_run[0] / "output", basic_run[0] / "logs"
    assert checkpoints(output) == ["step_00000002.pt"]
    for pattern in ("samples/*.wav", "samples/*.png", "alignments/*.png"):
        assert list(output.glob(pattern)), f"no {pattern}"
    for name in ("hparams.yaml", "run.json", "metrics.jsonl", "events.jsonl"):
        assert (output / name).stat().st_size > 0
    assert "step=2/2 loss=" in (logs / "train.log").read_text()
    assert not list(output.rglob("*.tmp")), "temporary files were left behind"


def test_the_basic_command_records_finite_losses(basic_run: tuple[Path, str]) -> None:
    records = read_metrics(basic_run[0] / "output")
    assert [(record["type"], record["step"]) for record in records] == [("step", 2), ("eval", 2)]
    losses = [value for record in records for value in record["losses"].values()]
    assert losses and all(map(isfinite, losses)), losses
    assert {"total", "mel", "mel_post", "gate", "guided_attention"} <= set(records[0]["losses"])
    assert records[0]["skipped"] == 0


def test_tensorboard_shows_curves_alignment_and_audio(basic_run: tuple[Path, str]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(basic_run[0] / "logs"))
    events.Reload()
    tags = events.Tags()
    assert {"train/total", "train/mel_post", "validation/score", "progress/learning_rate"} <= set(tags["scalars"])
    assert "alignment/0" in tags["images"]
    assert "audio/0" in tags["audio"]
    assert [event.step for event in events.Scalars("train/total")] == [2]
    assert events.Audio("audio/0")[0].sample_rate == SAMPLING_RATE


def test_a_finished_run_says_so_and_changes_nothing(basic_run: tuple[Path, str], cache: Path) -> None:
    cwd, _ = basic_run
    path = cwd / "output" / "checkpoints" / "step_00000002.pt"
    before, recorded = path.stat(), read_metrics(cwd / "output")
    done = run("train.py", *BASIC, "--max-steps", "2", cwd=cwd, cache=cache)
    assert done.returncode == 0, done.stderr
    assert "already finished: it ended at step 2 (max_steps)" in done.stderr
    after = path.stat()
    assert (after.st_mtime_ns, after.st_ino, after.st_size) == (before.st_mtime_ns, before.st_ino, before.st_size)
    assert read_metrics(cwd / "output") == recorded


# -- without -o: a run for each setting -------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        [f"learning_rate={rate},batch_size=16,{SMALLER}" for rate in ("1e-3", "1e-4", "5e-5")],
        pytest.param(
            [f"guide_loss_weight={weight},use_guided_attn=True,{TINY}" for weight in ("1.0", "2.0", "5.0")],
            marks=pytest.mark.campaign,
        ),
    ],
)
def test_a_loop_over_values_makes_a_run_for_each(dataset: Path, cache: Path, settings: list[str]) -> None:
    for setting in settings:
        done = run("train.py", "--hparams", setting, "--max-steps", "1", cwd=dataset, cache=cache)
        assert done.returncode == 0, done.stderr
        named = re.search(r"no -o or -l given: this setting's own run is (output/run-[0-9a-f]{8})", done.stderr)
        assert named is not None, done.stderr
        assert checkpoints(dataset / named[1]) == ["step_00000001.pt"]
        shutil.rmtree(dataset / named[1] / "checkpoints")  # 340 MB each of the whole model
    names = sorted(path.name for path in (dataset / "output").glob("run-*"))
    assert len(names) == 3
    assert (dataset / "output" / "mlflow.db").exists() == ("mlflow_logging=False" not in settings[0])
    assert sorted(path.name for path in (dataset / "logs").iterdir()) == names


# -- data of one's own ------------------------------------------------------------------------------------------------


def test_own_data_in_ljspeech_layout_trains(tmp_path: Path, cache: Path) -> None:
    write_recordings(tmp_path / "LJSpeech-1.1")
    lines = [f"utt_{i}|{text.upper()}|{text}" for i, text in enumerate(TEXTS)]
    (tmp_path / "LJSpeech-1.1" / "metadata.csv").write_text("\n".join(lines) + "\n")
    files = (
        "training_files=LJSpeech-1.1/metadata.csv,validation_files=LJSpeech-1.1/metadata.csv,dataset_path=LJSpeech-1.1"
    )
    done = train_tiny(tmp_path, cache, "--max-steps", "2", hparams=files)
    assert "4 training and 4 validation utterances" in done.stderr
    assert "demo" not in done.stderr


def test_own_data_as_wav_and_text_trains(tmp_path: Path, cache: Path) -> None:
    lines = write_recordings(tmp_path / "mine")
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "train.txt").write_text("\n".join(lines[:3]) + "\n")
    (tmp_path / "lists" / "val.txt").write_text(lines[3] + "\n")
    files = "training_files=lists/train.txt,validation_files=lists/val.txt,dataset_path=mine"
    done = train_tiny(tmp_path, cache, "--max-steps", "2", hparams=files)
    assert "3 training and 1 validation utterances" in done.stderr


def damage(dataset: Path) -> None:
    """Adds a line of each unusable kind to the training list; its first three lines stay good."""
    (dataset / "data" / "wavs" / "broken.wav").write_bytes(b"no sound at all")
    with (dataset / "data" / "dataset" / "train.csv").open("a") as f:
        f.write("wavs/absent.wav|Nobody recorded this.\n")
        f.write("wavs/utt_0.wav|DecodedSteps twice.\n")
        f.write("wavs/utt_3.wav\n")
        f.write("wavs/utt_3.wav|\n")
        f.write("wavs/utt_3.wav|100 % @home\n")
        f.write("wavs/broken.wav|This file holds no sound.\n")


def test_all_bad_data_is_reported_at_once_with_file_and_line(dataset: Path, cache: Path) -> None:
    damage(dataset)
    done = run("train.py", *tiny_arguments("--max-steps", "2"), cwd=dataset, cache=cache)
    assert_refused(done, 3, "--skip-bad-data", *(f"data/dataset/train.csv:{line}:" for line in range(4, 10)))
    assert "train.csv:1:" not in done.stderr.partition("error:")[2]  # only warned about
    assert not (dataset / "output" / "checkpoints").exists()


def test_skip_bad_data_trains_without_it_and_says_how_much(dataset: Path, cache: Path) -> None:
    damage(dataset)
    done = train_tiny(dataset, cache, "--max-steps", "2", "--skip-bad-data")
    assert "left out 6 lines" in done.stderr
    assert "3 training and 1 validation utterances" in done.stderr


def test_a_run_whose_own_data_went_away_does_not_go_on_with_the_demo_corpus(
    voice: Path, tmp_path: Path, cache: Path
) -> None:
    shutil.copytree(voice, tmp_path / "output")
    done = run("train.py", *tiny_arguments("--max-steps", "3"), cwd=tmp_path, cache=cache)
    assert_refused(done, 3, "training_files=data/dataset/train.csv is no file")


def test_a_real_corpus_trains(tmp_path: Path, cache: Path) -> None:
    lists = KATHLEEN / "filelists"
    if not lists.is_dir():
        pytest.skip(f"no recordings in {KATHLEEN}; TACOTRON2_TEST_DATA may name another place")
    (tmp_path / "train.txt").write_text("\n".join((lists / "train.txt").read_text().splitlines()[:24]) + "\n")
    (tmp_path / "val.txt").write_text("\n".join((lists / "val.txt").read_text().splitlines()[:4]) + "\n")
    files = f"training_files=train.txt,validation_files=val.txt,dataset_path={KATHLEEN}"
    done = train_tiny(tmp_path, cache, "--max-steps", "2", hparams=files)
    assert "24 training and 4 validation utterances" in done.stderr
    assert checkpoints(tmp_path / "output") == ["step_00000002.pt"]
