"""Runs that go on: after changes, anew, from other weights, after kills and signals."""

import re
import signal
from pathlib import Path

import pytest
import torch

from run_directory.metrics_log import read_jsonl, read_metrics
from support.commands import (
    TINY,
    assert_refused,
    checkpoints,
    holds_a_step,
    interrupt_training,
    run,
    steps_recorded,
    tiny_arguments,
    train_tiny,
)

pytestmark = pytest.mark.spec


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
