"""multiproc.py as a person types it: real launchers, real processes, killed for real. And its decisions, alone."""

import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from common.errors import UserError
from parallel import launcher as launcher_module
from run_directory.metrics_log import read_jsonl, read_metrics
from support.commands import (
    ENDLESS,
    TINY,
    Started,
    assert_refused,
    holds_a_step,
    run,
    wait_until,
    write_dataset,
)

TO = ("-o", "output", "-l", "logs")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    write_dataset(tmp_path)
    return tmp_path


@pytest.fixture
def training(dataset: Path, cache: Path) -> Iterator[Started]:
    """Two processes under way, without an end."""
    started = Started(dataset, cache, "train.py", *TO, "--n_gpus", "2", "--hparams", ENDLESS)
    try:
        wait_until(lambda: holds_a_step(dataset / "output" / "metrics.jsonl"), started.process)
        assert len(started.find_processes()) == 2
        yield started
    finally:
        started.end()


# ---- faults


@pytest.mark.spec
def test_a_killed_process_ends_all_within_ten_seconds(training: Started) -> None:
    os.kill(training.pids[1], signal.SIGKILL)
    began = time.monotonic()
    assert training.process.wait(timeout=60) == 137
    assert time.monotonic() - began < 10 and training.alive() == []
    assert "process 1 was killed by signal 9" in training.said.read_text()


@pytest.mark.campaign
def test_a_process_that_hangs_is_named_with_the_place_and_all_go_on_from_the_checkpoint(
    dataset: Path, cache: Path
) -> None:
    often = ENDLESS.replace("iters_per_checkpoint=100000", "iters_per_checkpoint=5")
    started = Started(dataset, cache, "--n_gpus", "2", "--max_restarts", "1", "--hang_timeout", "10", "train.py", *TO,
                      "--max-steps", "40", "--hparams", often)  # fmt: skip
    try:
        wait_until((dataset / "output" / "checkpoints" / "step_00000010.pt").exists, started.process)
        stopped = started.find_processes()[1]
        os.kill(stopped, signal.SIGSTOP)
        assert started.process.wait(timeout=120) == 0
        assert stopped not in started.alive()
    finally:
        started.end()
    said = started.said.read_text()
    assert "did nothing for 10 s (it hung, or waits for one: --hang_timeout); starting all again, 1 more times" in said
    assert "in _train" in said and "going on from step" in said  # where the other one waited


def assert_saves_once(training: Started, dataset: Path, number: signal.Signals) -> None:
    training.process.send_signal(number)
    assert training.process.wait(timeout=120) == 128 + number
    assert training.alive() == [] and "Traceback" not in training.said.read_text()
    saved, ended = (e for e in read_jsonl(dataset / "output" / "events.jsonl") if e["kind"] in ("saved", "ended"))
    assert (saved["kind"], ended["message"]) == ("saved", "signal")
    assert (dataset / "output" / "checkpoints" / f"step_{ended['step']:08d}.pt").exists()


@pytest.mark.slow
def test_a_request_to_end_saves_once(training: Started, dataset: Path) -> None:
    assert_saves_once(training, dataset, signal.SIGTERM)


@pytest.mark.campaign
def test_an_interrupted_launcher_saves_once(training: Started, dataset: Path) -> None:
    assert_saves_once(training, dataset, signal.SIGINT)


@pytest.mark.campaign
def test_a_killed_launcher_leaves_nobody_behind_and_the_run_saved(training: Started, dataset: Path) -> None:
    training.process.kill()
    deadline = time.monotonic() + 60
    while training.alive():
        assert time.monotonic() < deadline, "processes outlive their launcher"
        time.sleep(0.05)
    assert list((dataset / "output" / "checkpoints").glob("step_*.pt"))


@pytest.mark.spec
def test_bad_data_is_said_once_and_not_tried_again(dataset: Path, cache: Path) -> None:
    with (dataset / "data" / "dataset" / "train.csv").open("a") as f:
        f.write("wavs/absent.wav|Nobody recorded this.\n")
    done = run("multiproc.py", "--n_gpus=2", "--max_restarts=3", "train.py", *TO, "--hparams", TINY, cwd=dataset,
               cache=cache)  # fmt: skip
    assert_refused(done, 3, "data/dataset/train.csv:4: no such file")
    assert done.stderr.count("no such file") == 1


@pytest.mark.campaign
def test_after_a_process_was_killed_the_run_goes_on_from_its_checkpoint(dataset: Path, cache: Path) -> None:
    often = ENDLESS.replace("iters_per_checkpoint=100000", "iters_per_checkpoint=5")
    started = Started(dataset, cache, "--n_gpus", "2", "--max_restarts", "1", "train.py", *TO, "--fresh", "--max-steps",
                      "30", "--hparams", often)  # fmt: skip
    try:
        saved = dataset / "output" / "checkpoints" / "step_00000010.pt"
        wait_until(saved.exists, started.process)
        os.kill(started.find_processes()[0], signal.SIGKILL)
        assert started.process.wait(timeout=180) == 0
    finally:
        started.end()
    assert "starting all again" in started.said.read_text()
    assert [line["step"] for line in read_metrics(dataset / "output") if line["type"] == "step"] == [10, 20, 30]
    assert not (dataset / "output" / "previous").exists(), "--fresh acts once a launch"


# ---- decisions


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--n_gpus", "2"], "must be a script, train.py: none is given"),
        (["--n_gpus", "2", "trian.py"], "must be a script, train.py: trian.py is none"),
        (["train.py", "--nnodes", "2"], "--nnodes 2 needs --node_rank R and --rdzv_endpoint HOST:PORT"),
        (["train.py", "--rdzv-endpoint", "host1"], "--rdzv_endpoint host1 must be HOST:PORT"),
        (["train.py", "--node_rank", "1"], "--node_rank 1 must be under --nnodes 1"),
    ],
)
def test_what_cannot_be_launched_is_refused(arguments: list[str], message: str, tmp_path: Path, cache: Path) -> None:
    assert_refused(run("multiproc.py", *arguments, cwd=tmp_path, cache=cache), 2, message)


def test_more_processes_than_gpus_are_refused_with_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)  # no machine of the tests has two
    assert (launcher_module.processes_here(None), launcher_module.processes_here(1)) == (2, 1)
    with pytest.raises(UserError, match="--n_gpus 3, but this machine has 2; ask for at most 2"):
        launcher_module.processes_here(3)


def test_a_port_that_is_taken_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        endpoint = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(UserError, match=f"--rdzv_endpoint {endpoint}: port .* in use.*another one with --rdzv_end"):
            launcher_module.run(launcher_module.Launch(["train.py"], 1, nnodes=2, rdzv_endpoint=endpoint))


def test_a_killed_process_is_the_cause_though_others_failed_beside_it() -> None:
    assert launcher_module.first_cause({0: 1, 1: -9, 2: 1}) == 1
    assert launcher_module.first_cause({2: 1, 1: 1}) == 1


@pytest.mark.parametrize(
    ("number", "exit_codes", "expected"),
    [
        (signal.SIGTERM, {0: 143, 1: 143}, 143),
        (signal.SIGINT, {0: 130, 1: 130}, 130),
        (signal.SIGHUP, {0: 143, 1: 143}, 143),
        (signal.SIGINT, {0: -2, 1: 130}, 130),
        (signal.SIGTERM, {0: 0, 1: 0}, 0),
        (signal.SIGTERM, {0: 3, 1: 143}, 3),
        (signal.SIGTERM, {}, 143),
    ],
)
def test_the_exit_code_after_a_signal(number: int, exit_codes: dict[int, int], expected: int) -> None:
    assert launcher_module.after_signal(number, exit_codes) == expected


@pytest.mark.parametrize(
    ("exit_codes", "is_told"), [({0: 2, 1: 2}, False), ({0: -15, 1: 2}, True), ({0: 1, 1: -9}, True)]
)
def test_what_the_first_process_has_said_on_the_terminal_is_not_said_again(
    exit_codes: dict[int, int], is_told: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "stderr.log").write_text("".join(f"line {i}\n" for i in range(100)))
    code = exit_codes[1] if exit_codes[1] > 0 else 128 - exit_codes[1]
    launcher_module.print_failure(launcher_module.Failure(1, code, str(tmp_path / "stderr.log")), exit_codes)
    assert ("process 1" in caplog.text) is is_told
    assert re.findall(r"line \d+", caplog.text) == [f"line {i}" for i in range(70, 100)] * is_told
