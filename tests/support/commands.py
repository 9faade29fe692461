"""The commands as child processes: their environment, datasets to run on, what a refusal looks like."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile

from run_directory.metrics_log import read_metrics
from support.compiled import compile_once, share_compiled_loops
from support.paths import REPOSITORY
from support.warm_commands import run_warm

SAMPLING_RATE = 22050
TINY = (
    "symbols_embedding_dim=16,encoder_embedding_dim=16,encoder_n_convolutions=1,attention_dim=8,attention_rnn_dim=16,"
    "decoder_rnn_dim=16,prenet_dim=8,postnet_embedding_dim=8,postnet_n_convolutions=2,attention_location_n_filters=4,"
    "attention_location_kernel_size=5,max_decoder_steps=60,batch_size=2,num_workers=0,mlflow_logging=False,"
    "telegram_monitoring=False,debug_reporting=False,save_attention_plots=False,tensorboard_logging=False"
)
TEXTS = ("Hello there.", "A small voice.", "One more line.", "The last of four.")


def command(script: str, *arguments: str | Path) -> list[str]:
    """A script of the root, or `-m package`, which must run in the root."""
    called = [str(REPOSITORY / script)] if script.endswith(".py") else script.split()
    return [sys.executable, *called, *map(str, arguments)]


def environment(cache: Path) -> dict[str, str]:
    """Ours, with a cache of its own but for the compiled loops, a wide terminal, and no outer launch."""
    compile_once()
    share_compiled_loops(cache)
    inherited = {k: v for k, v in os.environ.items() if k not in ("TACOTRON2_LAUNCH_ID", "TORCHELASTIC_RUN_ID")}
    return inherited | {"TACOTRON2_CACHE": str(cache), "COLUMNS": "200"}


def run(
    script: str, *arguments: str | Path, cwd: Path, cache: Path, timeout_s: float = 300
) -> subprocess.CompletedProcess[str]:
    cwd = cwd if script.endswith(".py") else REPOSITORY
    return run_warm(command(script, *arguments)[1:], cwd=cwd, env=environment(cache), timeout_s=timeout_s)


def write_recordings(folder: Path, *, texts: Sequence[str] = TEXTS, duration_s: float = 0.4) -> list[str]:
    """`wavs/utt_0.wav` ... with a tone each, and the `wav|text` lines that list them."""
    (folder / "wavs").mkdir(parents=True, exist_ok=True)
    time_s = np.arange(int(duration_s * SAMPLING_RATE)) / SAMPLING_RATE
    for i in range(len(texts)):
        tone = 0.3 * np.sin(2 * np.pi * (200 + 50 * i) * time_s)
        soundfile.write(folder / "wavs" / f"utt_{i}.wav", tone, SAMPLING_RATE)
    return [f"wavs/utt_{i}.wav|{text}" for i, text in enumerate(texts)]


def write_dataset(cwd: Path) -> None:
    """Recordings where the trainer looks without being told: data/dataset/."""
    lines = write_recordings(cwd / "data")
    (cwd / "data" / "dataset").mkdir()
    (cwd / "data" / "dataset" / "train.csv").write_text("\n".join(lines[:3]) + "\n")
    (cwd / "data" / "dataset" / "val.csv").write_text("\n".join(lines[3:]) + "\n")


def assert_refused(done: subprocess.CompletedProcess[str], exit_code: int, *expected: str) -> None:
    """The exit code, every expected part on stderr, nothing on stdout, no traceback."""
    assert done.returncode == exit_code, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    for part in expected:
        assert part in done.stderr, done.stderr


ENDLESS = f"{TINY},iters_per_checkpoint=100000,validate_interval=100000,early_stopping=False"


class Started:
    """A launcher that runs beside the test, and the processes that it started."""

    def __init__(self, cwd: Path, cache: Path, *arguments: str) -> None:
        self.said = cwd / "launcher.log"
        with self.said.open("wb") as log:
            self.process = subprocess.Popen(
                command("multiproc.py", *arguments), cwd=cwd, env=environment(cache), stderr=log, start_new_session=True
            )
        self.pids: list[int] = []

    def find_processes(self) -> list[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        self.pids = sorted(map(int, children.read_text().split()))
        return self.pids

    def alive(self) -> list[int]:
        return [pid for pid in self.pids if _state(pid) not in ("Z", "")]

    def end(self) -> None:
        for pid in [self.process.pid, *self.alive()]:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        self.process.wait()


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except FileNotFoundError:
        return ""


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared by all processes of a test run, so that the demo corpus is spoken once."""
    of_this_process = tmp_path_factory.getbasetemp()
    shared = (of_this_process.parent if "PYTEST_XDIST_WORKER" in os.environ else of_this_process) / "shared-cache"
    shared.mkdir(exist_ok=True)
    return shared


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A working folder with four recordings where the trainer looks by default."""
    write_dataset(tmp_path)
    return tmp_path


def tiny_arguments(*more: str, hparams: str = "") -> tuple[str, ...]:
    return ("-o", "output", "-l", "logs", "--hparams", ",".join(filter(None, [TINY, hparams])), *more)


def checkpoints(run_directory: Path) -> list[str]:
    return sorted(path.name for path in (run_directory / "checkpoints").glob("step_*.pt"))


def train_tiny(cwd: Path, cache: Path, *more: str, hparams: str = "") -> subprocess.CompletedProcess[str]:
    done = run("train.py", *tiny_arguments(*more, hparams=hparams), cwd=cwd, cache=cache)
    assert done.returncode == 0, done.stderr
    return done


def steps_recorded(run_directory: Path) -> list[int]:
    return [record["step"] for record in read_metrics(run_directory) if record["type"] == "step"]


@pytest.fixture(scope="session")
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


# -- interrupted ------------------------------------------------------------------------------------------------------


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[bytes], *, timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert process.poll() is None, f"training ended by itself with {process.returncode} before it could be hit"
        assert time.monotonic() < deadline, f"nothing to hit within {timeout_s} s"
        time.sleep(0.02)


def interrupt_training(
    cwd: Path, cache: Path, arguments: tuple[str, ...], *, when: Callable[[], bool], number: signal.Signals
) -> int:
    """Trains in a process group of its own, hits it with a signal at the given moment, returns the exit status."""
    with (cwd / "interrupted.log").open("wb") as log:
        process = subprocess.Popen(
            command("train.py", *arguments), cwd=cwd, env=environment(cache), stderr=log, start_new_session=True
        )
        try:
            wait_until(when, process)
            if number == signal.SIGKILL:
                os.killpg(process.pid, number)
            else:
                process.send_signal(number)
            return process.wait(timeout=120)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def holds_a_step(metrics: Path) -> bool:
    """Training is under way: the file's first line, a rewind, is written before signals are caught."""
    return metrics.exists() and '"type": "step"' in metrics.read_text(encoding="utf-8")
