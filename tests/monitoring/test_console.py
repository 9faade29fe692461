"""What a person sees while training: that it lives, from the first step on, and how long it takes."""

import io
import logging
import time
from pathlib import Path

import pytest
from rich.console import Console

from monitoring import console
from monitoring.console import ConsoleObserver
from monitoring.observer import Recorder
from support.written_runs import info_of, step_record


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


def steps(recorder: Recorder, clock: Clock, numbers: range, *, seconds: float) -> None:
    for step in numbers:
        clock.now += seconds
        recorder.step_done(step)
        if step % 10 == 0:
            recorder.emit(step_record(step))


def test_a_slow_machine_shows_its_first_steps_at_once_and_then_now_and_then(
    clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder(observers=[ConsoleObserver()])
    recorder.start(info_of(tmp_path, total_steps=1000))
    with caplog.at_level(logging.INFO):
        steps(recorder, clock, range(1, 2), seconds=30.0)
        steps(recorder, clock, range(2, 21), seconds=4.0)
    said = [message.split(" alignment")[0] for message in caplog.messages]
    assert said[:2] == ["step=1/1000 the first step took 30.0 s", "step=2/1000 4.00 s/step eta=1h06m"]
    assert [message.partition("/")[0] for message in said[2:]] == ["step=5", "step=8", "step=10", "step=20"]
    assert "loss=" in said[-1]


def test_steps_in_a_hurry_show_no_more_lines_than_the_first_two(
    clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder(observers=[ConsoleObserver()])
    recorder.start(info_of(tmp_path))
    with caplog.at_level(logging.INFO):
        steps(recorder, clock, range(1, 100), seconds=0.1)
    assert [message.split()[0] for message in caplog.messages] == ["step=1", "step=2", "step=10"]


def test_a_long_silence_between_records_is_broken(
    clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder(observers=[ConsoleObserver()])
    recorder.start(info_of(tmp_path))
    steps(recorder, clock, range(1, 11), seconds=30.0)
    caplog.clear()
    with caplog.at_level(logging.INFO):
        steps(recorder, clock, range(11, 16), seconds=30.0)
    assert caplog.messages == ["step=12", "step=14"]


def test_on_a_terminal_the_bar_moves_with_each_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(console, "CONSOLE", Console(file=terminal, force_terminal=True, width=120))
    recorder = Recorder(observers=[observer := ConsoleObserver()])
    recorder.start(info_of(tmp_path, total_steps=1000))
    for step in (1, 2):
        recorder.step_done(step)
        assert observer._bar is not None
        observer._bar.refresh()
    recorder.close()
    assert "step 1/1000" in terminal.getvalue() and "the first step took" in terminal.getvalue()
    assert "step 2/1000" in terminal.getvalue() and "s/step eta=" in terminal.getvalue()
