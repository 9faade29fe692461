"""`python emergency_recovery.py` as documented, on a run that was killed."""

import fcntl
import json
import os
import pty
import shutil
import signal
import subprocess
import termios
from pathlib import Path

import pytest

from run_directory.metrics_log import read_jsonl
from support.commands import (
    begun,
    cache,
    checkpoints,
    command,
    dataset,
    environment,
    holds_a_step,
    interrupt_training,
    run,
    tiny_arguments,
    voice,
    wait_until,
)

pytestmark = pytest.mark.spec
__all__ = ["begun", "cache", "dataset", "voice"]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A working folder with a run that was killed -9 after step 20, before its end at 60."""
    from support.commands import write_dataset

    folder = tmp_path_factory.mktemp("killed")
    write_dataset(folder)
    arguments = tiny_arguments("--max-steps", "60", hparams="iters_per_checkpoint=5,validate_interval=10000")
    saved = folder / "output" / "checkpoints" / "step_00000020.pt"
    status = interrupt_training(folder, cache, arguments, when=saved.exists, number=signal.SIGKILL)
    assert status == -signal.SIGKILL and checkpoints(folder / "output")[-1] < "step_00000060.pt"
    return folder


@pytest.fixture
def folder(killed: Path, tmp_path: Path) -> Path:
    shutil.copytree(killed, tmp_path, dirs_exist_ok=True)
    content = json.loads((tmp_path / "output" / "run.json").read_text())
    content["working_directory"] = str(tmp_path)  # as if it had been started here
    (tmp_path / "output" / "run.json").write_text(json.dumps(content))
    return tmp_path


def test_without_arguments_it_finds_the_run_and_says_what_happened(folder: Path, cache: Path) -> None:
    done = run("emergency_recovery.py", cwd=folder, cache=cache)
    assert done.returncode == 0, done.stderr
    assert "state:       killed" in done.stdout and "to go on:" in done.stdout
    assert done.stdout.count(" whole") == len(checkpoints(folder / "output"))


def test_restart_goes_on_past_damaged_files_to_the_end(folder: Path, cache: Path) -> None:
    last = folder / "output" / "checkpoints" / checkpoints(folder / "output")[-1]
    last.write_bytes(last.read_bytes()[:1000])
    done = run("emergency_recovery.py", "output", "--restart", cwd=folder, cache=cache)
    assert done.returncode == 0, done.stderr
    assert checkpoints(folder / "output")[-1] == "step_00000060.pt"
    assert (folder / "output" / "checkpoints" / "quarantine" / last.name).exists()
    kinds = [event["kind"] for event in read_jsonl(folder / "output" / "events.jsonl")]
    assert "resumed" in kinds and kinds[-1] == "ended"


@pytest.mark.slow
def test_the_restarted_training_saves_when_it_is_ended(folder: Path, cache: Path) -> None:
    info = json.loads((folder / "output" / "run.json").read_text())
    endless = [word for word in info["command"] if word not in ("--max-steps", "60")]
    (folder / "output" / "run.json").write_text(json.dumps({**info, "command": endless}))
    before = len(list(read_jsonl(folder / "output" / "metrics.jsonl")))
    arguments = command("emergency_recovery.py", "output", "--restart")
    restarted = subprocess.Popen(arguments, cwd=folder, env=environment(cache), stderr=subprocess.PIPE, text=True)
    wait_until(lambda: len(list(read_jsonl(folder / "output" / "metrics.jsonl"))) > before + 3, restarted)
    restarted.send_signal(signal.SIGINT)
    assert restarted.wait(timeout=120) == 130 and "Traceback" not in restarted.communicate()[1]
    assert [event["message"] for event in read_jsonl(folder / "output" / "events.jsonl")][-1] == "signal"


def test_a_chosen_checkpoint_goes_on_beside_the_old_run(folder: Path, cache: Path) -> None:
    first = folder / "output" / "checkpoints" / checkpoints(folder / "output")[0]
    before = checkpoints(folder / "output")
    done = run("emergency_recovery.py", "output", "--checkpoint", str(first), "--restart", cwd=folder, cache=cache)
    assert done.returncode == 0, done.stderr
    assert checkpoints(folder / "output") == before
    assert checkpoints(folder / "output-recovered")[-1] == "step_00000060.pt"


def test_where_nothing_was_trained_it_says_so(tmp_path: Path, cache: Path) -> None:
    done = run("emergency_recovery.py", cwd=tmp_path, cache=cache)
    assert done.returncode == 5 and "no run under output/" in done.stderr and "Traceback" not in done.stderr


def test_a_run_that_fails_again_and_again_gives_up_with_a_diagnosis_and_goes_on_once_something_changes(
    tmp_path: Path, cache: Path
) -> None:
    from support.commands import write_dataset

    write_dataset(tmp_path)
    hopeless, fair = (
        tiny_arguments("--max-steps", "12", hparams=f"gradient_explosion_threshold={x}") for x in ("1e-9", "1e9")
    )
    first = run("train.py", *hopeless, cwd=tmp_path, cache=cache)
    assert first.returncode == 4 and "Traceback" not in first.stderr
    assert "went back 3 times" in first.stderr and "raise gradient_explosion_threshold" in first.stderr
    events = [event["kind"] for event in read_jsonl(tmp_path / "output" / "events.jsonl")]
    assert events.count("rollback") == 3 and events[-1] == "gave_up" and "crashed" not in events
    told = json.loads((tmp_path / "output" / "diagnosis.json").read_text(encoding="utf-8"))
    assert told["kind"] == "explosion" and told["utterances"] and told["last_good"] is None

    again = run("train.py", *hopeless, cwd=tmp_path, cache=cache)
    assert again.returncode == 4 and "went back 3 times" in again.stderr
    events = [event["kind"] for event in read_jsonl(tmp_path / "output" / "events.jsonl")]
    assert events[events.index("gave_up") + 1 :] == ["started", "gave_up"]  # it did not try again

    changed = run("train.py", *fair, cwd=tmp_path, cache=cache)
    assert changed.returncode == 0, changed.stderr
    assert not (tmp_path / "output" / "diagnosis.json").exists()


@pytest.mark.slow
def test_a_terminal_that_closes_ends_the_run_saved(dataset: Path, cache: Path) -> None:
    arguments = tiny_arguments("--max-steps", "100000", hparams="iters_per_checkpoint=100000")
    ours, terminal = pty.openpty()
    process = subprocess.Popen(
        command("train.py", *arguments), cwd=dataset, env=environment(cache), stdin=terminal, stdout=terminal,
        stderr=terminal, start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(terminal)
    while not holds_a_step(dataset / "output" / "metrics.jsonl"):
        os.read(ours, 10_000)  # a terminal that nobody reads holds up whoever writes
    os.close(ours)
    assert process.wait(120) == 128 + signal.SIGHUP
    steps = [record["step"] for record in read_jsonl(dataset / "output" / "metrics.jsonl") if record["type"] == "step"]
    assert checkpoints(dataset / "output") == [f"step_{steps[-1]:08d}.pt"]


def test_the_restart_of_a_finished_run_says_that_it_is_finished(begun: Path, cache: Path) -> None:
    done = run("emergency_recovery.py", "output", "--restart", cwd=begun, cache=cache)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert "finished: max_steps" in done.stdout and checkpoints(begun / "output") == ["step_00000002.pt"]
