"""From a trained voice to speech and its marks, and from the checkpoints of NVIDIA."""

import json
from math import isfinite
from pathlib import Path

import pytest
import soundfile
import torch

from hparams import create_hparams
from model import Tacotron2
from support.commands import (
    SAMPLING_RATE,
    assert_refused,
    run,
)

pytestmark = pytest.mark.spec


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
