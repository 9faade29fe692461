"""A trial's process: followed, pruned, ended with all its children, restarted after a kill. Real processes."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from smart_tuner.objective import Records, validations
from smart_tuner.trainer_wrapper import OUTPUT_FILE, PID_FILE, TrainerWrapper, end_leftover
from support.paths import REPOSITORY

STAND_IN = REPOSITORY / "tests/support/fake_trainer.py"


@pytest.fixture
def wrapper(tmp_path: Path) -> Callable[..., TrainerWrapper]:
    def make(
        behaviour: str = "", *, grace_s: float = 20.0, stalled_s: float = 60.0, room_waits_s: Sequence[float] = ()
    ) -> TrainerWrapper:
        directory = tmp_path / "trial_00000"
        hparams = "learning_rate=0.001,validate_interval=2,epochs=2"
        command = [sys.executable, str(STAND_IN), "-o", str(directory), "--max-steps", "4", "--hparams", hparams]
        environment = dict(os.environ) | {"STAND_IN": behaviour}
        return TrainerWrapper(
            command, directory, environment=environment, grace_s=grace_s, stalled_s=stalled_s, poll_s=0.02,
            room_waits_s=room_waits_s,
        )  # fmt: skip

    return make


def launches(trial: TrainerWrapper) -> int:
    return len((trial.directory / "launches").read_text())


def test_a_trial_is_followed_to_its_end(wrapper) -> None:
    seen: list[int] = []
    outcome = wrapper().run(lambda records: seen.append(len(validations(records))))
    assert (outcome.ending, outcome.exit_code, len(validations(outcome.records))) == ("finished", 0, 2)
    assert seen[-1] == 2, "the last validation was shown"


def test_a_trial_ends_when_it_shall(wrapper) -> None:
    trial = wrapper("hang")
    outcome = trial.run(lambda records: "pruned" if len(validations(records)) == 2 else None)
    assert (outcome.ending, outcome.exit_code) == ("pruned", 143)
    assert not (trial.directory / PID_FILE).exists()


def test_a_trial_that_ignores_sigterm_is_killed_after_the_grace(wrapper) -> None:
    outcome = wrapper("deaf", grace_s=0.2).run(lambda records: "interrupted" if validations(records) else None)
    assert (outcome.ending, outcome.exit_code) == ("interrupted", -signal.SIGKILL)


def test_a_trial_without_new_records_is_ended_as_stalled(wrapper) -> None:
    assert wrapper("hang", stalled_s=0.3).run(lambda _: None).ending == "stalled"


def test_a_killed_trial_goes_on_once_more(wrapper) -> None:
    trial = wrapper("killed")
    assert trial.run(lambda _: None).ending == "finished"
    assert launches(trial) == 2


def test_a_trial_that_died_is_not_repeated_and_its_last_words_are_kept(wrapper) -> None:
    trial = wrapper("die")
    outcome = trial.run(lambda _: None)
    assert (outcome.ending, outcome.exit_code, launches(trial)) == ("died", 1, 1)
    assert outcome.error == "RuntimeError: this trial was made to die" in (trial.directory / OUTPUT_FILE).read_text()


def test_a_trial_that_found_no_room_on_the_disk_is_no_bad_trial_and_goes_on(wrapper) -> None:
    trial = wrapper("full", room_waits_s=(0.05, 0.05))
    assert trial.run(lambda _: None).ending == "finished" and launches(trial) == 3


def test_a_disk_that_stays_full_ends_the_search_and_a_signal_the_waiting(wrapper) -> None:
    with pytest.raises(OSError, match="No space left on device"):
        wrapper("full", room_waits_s=(0.05,)).run(lambda _: None)
    (wrapper().directory / "launches").unlink()
    waiting = wrapper("full", room_waits_s=(60.0,))
    looks = iter(range(10**6))
    ended = waiting.run(lambda _: "interrupted" if next(looks) > 100 else None)
    assert ended.ending == "interrupted" and launches(waiting) == 1


def test_what_an_earlier_search_left_running_is_ended_before_the_trial_goes_on(wrapper) -> None:
    trial = wrapper("hang")
    trial.directory.mkdir()
    leftover = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)", str(trial.directory)], start_new_session=True
    )
    while not Path(f"/proc/{leftover.pid}/cmdline").read_bytes():  # in the middle of exec a process has no command yet
        time.sleep(0.01)
    (trial.directory / PID_FILE).write_text(str(leftover.pid))
    reaper = threading.Thread(target=leftover.wait)  # as init would for an orphan
    reaper.start()
    end_leftover(trial.directory, grace_s=20.0)
    reaper.join()
    assert leftover.returncode == -signal.SIGTERM


def test_a_process_number_that_somebody_else_has_by_now_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / PID_FILE).write_text(str(os.getpid()))
    end_leftover(tmp_path, grace_s=0.1)  # would end the tests


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's signal at a parent's death is Linux's")
def test_a_trial_ends_when_its_search_is_killed(tmp_path: Path) -> None:
    directory = tmp_path / "trial_00000"
    hparams = "learning_rate=0.001,validate_interval=2,epochs=2"
    command = [sys.executable, str(STAND_IN), "-o", str(directory), "--max-steps", "4", "--hparams", hparams]
    code = (
        "import sys; from pathlib import Path; from smart_tuner.trainer_wrapper import TrainerWrapper\n"
        f"TrainerWrapper({command!r}, Path({str(directory)!r}), poll_s=0.05).run("
        "lambda records: print('running', flush=True) if records else None)"
    )
    environment = dict(os.environ) | {"STAND_IN": "hang", "PYTHONPATH": str(STAND_IN.parents[1])}
    search = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
    assert search.stdout is not None and search.stdout.readline() == "running\n"
    trial = int((directory / PID_FILE).read_text())
    search.kill()
    search.wait()
    search.stdout.close()
    assert has_ended(trial), "the trial trains on for nobody"


def has_ended(pid: int, within_s: float = 20.0) -> bool:
    """Waits on the process itself, not on the clock."""
    import select

    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], within_s)[0])
    finally:
        os.close(descriptor)


def test_records_are_read_without_those_that_a_rewind_superseded(wrapper) -> None:
    trial = wrapper()
    trial.directory.mkdir()
    old = '{"type": "step", "step": 9, "epoch": 9.0, "losses": {}}\n{"type": "rewind", "to_step": 0}\n'
    (trial.directory / "metrics.jsonl").write_text(old)
    shown: list[Records] = []
    trial.run(lambda records: shown.append(records))
    assert all(record["step"] <= 4 for records in shown for record in records)
