"""Several processes train one model: as documented, as one with the joined batch, on two machines, by hand."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from run_directory.metrics_log import read_metrics
from support.commands import (
    REPOSITORY,
    TINY,
    command,
    environment,
    run,
    write_recordings,
)

TO = ("-o", "output", "-l", "logs")
AS_ONE = (
    f"{TINY},dropout_rate=0,p_attention_dropout=0,p_decoder_dropout=0,encoder_dropout_rate=0,postnet_dropout_rate=0,"
    "warmup_steps=0,validate_interval=100000,training_files=data/train.txt,validation_files=data/train.txt,"
    "dataset_path=data"
).replace("batch_size=2,", "")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Of its own: how often mels are made is counted."""
    return tmp_path / "cache"


def step_losses(run_directory: Path) -> list[float]:
    return [record["losses"]["total"] for record in read_metrics(run_directory) if record["type"] == "step"]


@pytest.mark.spec
def test_the_documented_command_trains_in_four_processes(dataset: Path, cache: Path) -> None:
    done = run("multiproc.py", "train.py", *TO, "--n_gpus", "4", "--hparams",
               f"distributed_run=True,batch_size=16,{TINY.replace('batch_size=2,', '')}", "--max-steps", "2",
               cwd=dataset, cache=cache)  # fmt: skip
    assert done.returncode == 0, done.stderr
    if not torch.cuda.is_available():
        assert "this machine has NO GPU: training in 4 CPU processes on gloo" in done.stderr
    assert done.stderr.count("each shared by 4 processes") == 1
    assert done.stderr.count("mel features 4/4") == 1
    assert [path.name for path in (dataset / "output" / "checkpoints").glob("*.pt")] == ["step_00000002.pt"]
    saved = torch.load(dataset / "output/checkpoints/step_00000002.pt", map_location="cpu", weights_only=True)
    assert len(saved["training"]["other_processes"]) == 3


@pytest.mark.slow
def test_the_loss_curve_of_two_processes_is_that_of_one_with_the_joined_batch(tmp_path: Path, cache: Path) -> None:
    lines = write_recordings(tmp_path / "data", texts=[f"Sentence number {n}." for n in "abcdefgh"])
    (tmp_path / "data" / "train.txt").write_text("\n".join(lines) + "\n")
    for script, name, settings in (
        (("multiproc.py", "--n_gpus", "2", "train.py"), "two", f"{AS_ONE},batch_size=4"),
        (("train.py",), "one", f"{AS_ONE},batch_size=8"),
    ):
        done = run(*script, "-o", name, "-l", f"{name}-logs", "--hparams", settings, "--max-steps", "20", cwd=tmp_path,
                   cache=cache)  # fmt: skip
        assert done.returncode == 0, done.stderr
    two, one = step_losses(tmp_path / "two"), step_losses(tmp_path / "one")
    assert one[1] < one[0] and len(two) == len(one) == 2
    # batch normalisation is by each process's own utterances, four here instead of eight
    assert two == pytest.approx(one, rel=0.02)


@pytest.mark.campaign
def test_two_machines_train_one_model_and_the_first_writes_it(dataset: Path, cache: Path) -> None:
    """Two launchers on the loopback, as if on machines of their own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{free.getsockname()[1]}"
    launchers = [
        subprocess.Popen(
            command("multiproc.py", "--n_gpus", "1", "--nnodes", "2", "--node_rank", str(rank), "--rdzv_endpoint",
                    endpoint, "train.py", "-o", f"output{rank}", "-l", f"logs{rank}", "--hparams", TINY, "--max-steps",
                    "3"), cwd=dataset, env=environment(cache), stderr=subprocess.PIPE, text=True,
        )
        for rank in (0, 1)
    ]  # fmt: skip
    said = [launcher.communicate(timeout=180)[1] for launcher in launchers]
    assert [launcher.returncode for launcher in launchers] == [0, 0], said
    assert (dataset / "output0" / "checkpoints" / "step_00000003.pt").exists() and not (dataset / "output1").exists()
    assert "each shared by 2 processes" in said[0]


@pytest.mark.slow
def test_processes_started_by_hand_end_at_once_after_training_together(dataset: Path, cache: Path) -> None:
    """The interpreter's orderly end tears threads of gloo out of their work, once in some hundred times."""
    watched = "import atexit, sys, train; atexit.register(print, 'orderly end'); train.leave(train.main(sys.argv[1:]))"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        together = f"distributed_run=True,dist_url=tcp://127.0.0.1:{free.getsockname()[1]}"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", watched, *TO, "--n_gpus", "2", "--rank", str(rank), "--max-steps", "1",
             "--hparams", f"{together},{TINY}"], cwd=dataset, env=environment(cache) | {"PYTHONPATH": str(REPOSITORY)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in (0, 1)
    ]  # fmt: skip
    said = [process.communicate(timeout=180) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert "ended at step 1" in said[0][1]
    assert not any("orderly end" in stdout for stdout, _ in said)
