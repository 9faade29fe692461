"""Every documented training command, a few steps each, from an empty folder to what it leaves behind."""

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from math import isfinite
from pathlib import Path

import pytest
import soundfile
import torch

from hparams import create_hparams
from model import Tacotron2
from run_directory.metrics_log import read_jsonl, read_metrics
from support.commands import (
    REPOSITORY,
    SAMPLING_RATE,
    TEXTS,
    TINY,
    assert_refused,
    checkpoints,
    holds_a_step,
    interrupt_training,
    run,
    tiny_arguments,
    write_dataset,
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


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """The run directory of a tiny voice after two steps; its data lies beside it."""
    cwd = tmp_path_factory.mktemp("voice")
    write_dataset(cwd)
    train_tiny(cwd, cache, "--max-steps", "2")
    return cwd / "output"


@pytest.fixture
def begun(voice: Path, tmp_path: Path) -> Path:
    """A working folder of one's own in which the tiny voice has been trained for two steps."""
    shutil.copytree(voice.parent, tmp_path, dirs_exist_ok=True)
    return tmp_path


def train_tiny(cwd: Path, cache: Path, *more: str, hparams: str = "") -> subprocess.CompletedProcess[str]:
    done = run("train.py", *tiny_arguments(*more, hparams=hparams), cwd=cwd, cache=cache)
    assert done.returncode == 0, done.stderr
    return done


def steps_recorded(run_directory: Path) -> list[int]:
    return [record["step"] for record in read_metrics(run_directory) if record["type"] == "step"]


# -- the basic command, on the demo corpus ----------------------------------------------------------------------------


def test_the_basic_command_trains_on_the_demo_corpus_and_says_so(basic_run: tuple[Path, str]) -> None:
    cwd, said = basic_run
    assert "no dataset is configured: training on the embedded demo corpus" in said
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


# -- resuming ---------------------------------------------------------------------------------------------------------


def test_resuming_with_another_rate_is_refused_and_names_the_ways_on(begun: Path, cache: Path) -> None:
    done = run("train.py", *tiny_arguments("--max-steps", "3", hparams="learning_rate=5e-4"), cwd=begun, cache=cache)
    assert_refused(done, 2, "learning_rate: 0.001 there, 0.0005 here", "--fresh", "another -o", "--resume-with-changes")
    assert checkpoints(begun / "output") == ["step_00000002.pt"]


def test_resuming_with_changes_goes_on(begun: Path, cache: Path) -> None:
    done = train_tiny(
        begun, cache, "--max-steps", "3", "--resume-with-changes", hparams="learning_rate=5e-4,warmup_steps=0"
    )
    assert "learning_rate: 0.001 there, 0.0005 here" in done.stderr
    assert checkpoints(begun / "output") == ["step_00000002.pt", "step_00000003.pt"]
    records = [record for record in read_metrics(begun / "output") if record["type"] == "step"]
    assert [record["step"] for record in records] == [2, 3]
    assert records[-1]["learning_rate"] == 5e-4


def test_a_change_that_may_happen_on_the_way_needs_no_permission(begun: Path, cache: Path) -> None:
    train_tiny(begun, cache, "--max-steps", "3", hparams="iters_per_checkpoint=1,early_stopping=False")
    assert steps_recorded(begun / "output") == [2, 3]


def test_a_model_of_another_shape_cannot_be_resumed_with_changes(begun: Path, cache: Path) -> None:
    changed = TINY.replace("prenet_dim=8", "prenet_dim=12")
    done = run("train.py", "-o", "output", "-l", "logs", "--hparams", changed, "--resume-with-changes", "--max-steps",
               "3", cwd=begun, cache=cache)  # fmt: skip
    assert_refused(done, 2, "prenet_dim: 8 there, 12 here", "--fresh", "--warm-start")


def test_fresh_starts_anew_and_keeps_the_old_run(begun: Path, cache: Path) -> None:
    done = train_tiny(begun, cache, "--max-steps", "1", "--fresh", hparams="learning_rate=5e-4")
    assert "starting anew" in done.stderr
    assert checkpoints(begun / "output") == ["step_00000001.pt"]
    assert steps_recorded(begun / "output") == [1]
    (kept,) = (begun / "output" / "previous").iterdir()
    assert checkpoints(kept) == ["step_00000002.pt"]
    assert steps_recorded(kept) == [2]


def test_warm_start_takes_weights_over_and_begins_at_step_0(voice: Path, dataset: Path, cache: Path) -> None:
    done = train_tiny(dataset, cache, "-c", str(voice), "--warm-start", "--max-steps", "1")
    assert "warm start from" in done.stderr and "tensors loaded" in done.stderr
    assert steps_recorded(dataset / "output") == [1]


LONG = "iters_per_checkpoint=5,validate_interval=10000,save_interval=0"


@pytest.mark.campaign  # two minutes; shorter tests of the same are in tests/training
def test_a_killed_run_ends_as_if_nothing_had_happened(dataset: Path, cache: Path) -> None:
    arguments = tiny_arguments("--max-steps", "120", hparams=LONG)
    saved = dataset / "output" / "checkpoints" / "step_00000020.pt"
    status = interrupt_training(dataset, cache, arguments, when=saved.exists, number=signal.SIGKILL)
    assert status == -signal.SIGKILL
    killed_at = int(checkpoints(dataset / "output")[-1][5:13])
    assert killed_at < 120, "the run was over before it was killed"

    resumed = run("train.py", *arguments, cwd=dataset, cache=cache)
    assert resumed.returncode == 0, resumed.stderr
    assert re.search(r"going on from step \d+", resumed.stderr)
    assert checkpoints(dataset / "output")[-1] == "step_00000120.pt"
    steps = steps_recorded(dataset / "output")
    assert steps[-1] == 120 and steps == sorted(set(steps)), steps
    assert {record["attempt"] for record in read_metrics(dataset / "output")} == {1, 2}

    undisturbed = run("train.py", "-o", "whole", *arguments[2:], cwd=dataset, cache=cache)
    assert undisturbed.returncode == 0, undisturbed.stderr
    ours, theirs = (final_weights(dataset / name) for name in ("output", "whole"))
    assert [name for name, tensor in ours.items() if not torch.equal(tensor, theirs[name])] == []


def final_weights(run_directory: Path) -> dict[str, torch.Tensor]:
    path = run_directory / "checkpoints" / "step_00000120.pt"
    return torch.load(path, map_location="cpu", weights_only=True)["model"]


def test_a_run_killed_before_its_first_checkpoint_records_each_step_once(dataset: Path, cache: Path) -> None:
    metrics = dataset / "output" / "metrics.jsonl"
    endless = tiny_arguments(hparams="iters_per_checkpoint=100000,validate_interval=100000,early_stopping=False")
    status = interrupt_training(dataset, cache, endless, when=lambda: holds_a_step(metrics), number=signal.SIGKILL)
    assert status == -signal.SIGKILL
    again = run("train.py", *endless, "--max-steps", "30", cwd=dataset, cache=cache)
    assert again.returncode == 0, again.stderr
    assert steps_recorded(dataset / "output") == [10, 20, 30]


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_interrupted_run_saves_the_step_it_was_at(
    number: signal.Signals, exit_code: int, dataset: Path, cache: Path
) -> None:
    metrics, events = dataset / "output" / "metrics.jsonl", dataset / "output" / "events.jsonl"
    endless = tiny_arguments(hparams="iters_per_checkpoint=100000,validate_interval=100000,early_stopping=False")
    status = interrupt_training(dataset, cache, endless, when=lambda: holds_a_step(metrics), number=number)
    assert status == exit_code
    (ended,) = (event for event in read_jsonl(events) if event["kind"] == "ended")
    assert ended["message"] == "signal"
    assert checkpoints(dataset / "output") == [f"step_{ended['step']:08d}.pt"]
    assert "Traceback" not in (dataset / "interrupted.log").read_text()


def test_max_minutes_ends_a_launch_saved(dataset: Path, cache: Path) -> None:
    done = train_tiny(dataset, cache, "--max-minutes", "0.02", hparams="validate_interval=100000")
    (saved,) = checkpoints(dataset / "output")[-1:]
    assert f"ended at step {int(saved[5:13])} (max_minutes)" in done.stderr


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


# -- from training to speech ------------------------------------------------------------------------------------------


def test_the_demo_preset_trains_speaks_and_is_judged(tmp_path: Path, cache: Path) -> None:
    done = run("train.py", "--preset", "demo", "-o", "output", "-l", "logs", "--max-steps", "2", cwd=tmp_path,
               cache=cache)  # fmt: skip
    assert done.returncode == 0, done.stderr

    said = run("synthesize.py", "-c", "output", "Hello there.", "-o", "hello.wav", cwd=tmp_path, cache=cache)
    assert said.returncode == 0, said.stderr
    assert said.stdout.startswith("hello.wav: ")
    wav, rate = soundfile.read(tmp_path / "hello.wav")
    assert rate == SAMPLING_RATE and len(wav) > 0
    assert (tmp_path / "hello.png").read_bytes().startswith(b"\x89PNG")

    (corpus,) = (path for path in cache.glob("demo-*") if path.is_dir())
    judged = run("evaluate.py", "-c", "output", "--filelist", corpus / "test.csv", "-n", "3", cwd=tmp_path, cache=cache)
    assert judged.returncode == 0, judged.stderr
    result = json.loads((tmp_path / "evaluation_results" / "evaluation.json").read_text())
    assert (result["step"], len(result["texts"])) == (2, 3)
    assert isfinite(result["mel_distance"])
    assert len(list((tmp_path / "evaluation_results").glob("*.png"))) == 3
    assert len(list((tmp_path / "evaluation_results").glob("*.wav"))) == 3


def test_the_same_seed_says_it_the_same_way(voice: Path, tmp_path: Path, cache: Path) -> None:
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        done = run("synthesize.py", "-c", voice, "Hello.", "-o", f"{name}.wav", "--seed", seed, "--no-pictures",
                   "--griffin-lim-iterations", "2", cwd=tmp_path, cache=cache)  # fmt: skip
        assert done.returncode == 0, done.stderr
    a, b, c = ((tmp_path / f"{name}.wav").read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_several_texts_make_several_files(voice: Path, tmp_path: Path, cache: Path) -> None:
    done = run("synthesize.py", "-c", voice, "One.", "Two.", "-o", "both/said.wav", "--no-pictures",
               "--griffin-lim-iterations", "2", cwd=tmp_path, cache=cache)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "both").iterdir()) == ["said_1.wav", "said_2.wav"]


def test_speaking_from_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "notes.pt").write_text("not a checkpoint")
    done = run("synthesize.py", "-c", "notes.pt", "Hello.", cwd=tmp_path, cache=cache)
    assert_refused(done, 2, "notes.pt")


def test_judging_by_a_missing_filelist_is_exit_3(voice: Path, tmp_path: Path, cache: Path) -> None:
    done = run("evaluate.py", "-c", voice, "--filelist", "absent.csv", cwd=tmp_path, cache=cache)
    assert_refused(done, 3, "absent.csv")
    assert not (tmp_path / "evaluation_results").exists()


# -- NVIDIA's checkpoints ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def nvidia_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Full-size weights in the layout of NVIDIA/tacotron2: no hyperparameters, no symbols, no mel statistics."""
    torch.manual_seed(0)
    weights = Tacotron2(create_hparams("normalize_mel=False")).state_dict()
    path = tmp_path_factory.mktemp("nvidia") / "tacotron2_statedict.pt"
    torch.save({"iteration": 6500, "state_dict": weights, "optimizer": {}, "learning_rate": 1e-3}, path)
    return path


def test_an_nvidia_checkpoint_loads_exactly_with_its_preset(
    nvidia_checkpoint: Path, dataset: Path, cache: Path
) -> None:
    done = run("train.py", "--preset", "nvidia", "-c", nvidia_checkpoint, "-o", "output", "-l", "logs", "--max-steps",
               "1", cwd=dataset, cache=cache)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"loaded all weights of {nvidia_checkpoint}" in done.stderr
    path = dataset / "output" / "checkpoints" / "step_00000001.pt"
    trained = torch.load(path, map_location="cpu", weights_only=True)["model"]
    path.unlink()
    given = torch.load(nvidia_checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    assert list(trained) == list(given)
    learned = [name for name in given if "running_" not in name and "num_batches" not in name]
    # the first step of Adam moves no weight by more than the warming-up rate, 1e-3 / 2000
    farthest = max((trained[name] - given[name]).abs().max().item() for name in learned)
    assert 0 < farthest < 1e-6


def test_an_nvidia_checkpoint_without_its_preset_is_refused_with_advice(
    nvidia_checkpoint: Path, dataset: Path, cache: Path
) -> None:
    done = run("train.py", "-c", nvidia_checkpoint, "-o", "output", "-l", "logs", "--max-steps", "1", cwd=dataset,
               cache=cache)  # fmt: skip
    assert_refused(done, 2, "--preset nvidia", "--warm-start", "normalize_mel")
