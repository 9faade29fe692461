"""The run's truth on disk, and observers that can neither slow nor stop it."""

import errno
import logging
import shutil
import threading
import time
from pathlib import Path

import pytest

from monitoring.observer import BackgroundObserver, RunInfo
from run_directory.metrics_log import MetricsFollower, RunLog, read_jsonl, read_metrics
from run_directory.records import EvalRecord, Event, Record, StepRecord
from support.limits import disk_that_takes

INFO = RunInfo(Path("run"), Path("logs"), {}, None, 0, "train.py")


def step_record(step: int, loss: float = 1.0) -> StepRecord:
    return StepRecord(step, 0.0, {"total": loss}, 1.0, 1e-3, 100.0, 0.1, 0.0, 0.0)


def steps_in(directory: Path) -> list[tuple[int, float]]:
    return [(line["step"], line["losses"]["total"]) for line in read_metrics(directory)]


class Collector:
    """Keeps what it sees; fails or waits where told to."""

    def __init__(self, *, fails_at: int | None = None, gate: threading.Event | None = None) -> None:
        self.seen: list[int] = []
        self.fails_at, self.gate, self.is_closed = fails_at, gate, False

    def on_start(self, run: RunInfo) -> None:
        self.run = run

    def on_record(self, record: Record) -> None:
        if self.gate is not None:
            self.gate.wait(20)
        if record.step == self.fails_at:
            raise RuntimeError("no connection")
        self.seen.append(record.step)

    def close(self) -> None:
        self.is_closed = True


def test_each_step_is_there_once_after_a_rewind(tmp_path: Path) -> None:
    first = RunLog(tmp_path, attempt=1)
    for step in (10, 20, 30):
        first.write(step_record(step, loss=1.0))
    first.close()
    second = RunLog(tmp_path, attempt=2)
    second.rewind(10)
    for step in (20, 30, 40):
        second.write(step_record(step, loss=2.0))
    second.close()
    assert steps_in(tmp_path) == [(10, 1.0), (20, 2.0), (30, 2.0), (40, 2.0)]


def test_a_run_that_is_followed_has_the_records_of_one_that_is_read_at_once(tmp_path: Path) -> None:
    """Whatever of it has been written at each look: half lines, rewinds, lines that a broken disk left."""
    log = RunLog(tmp_path, attempt=1)
    for step in (10, 20, 30):
        log.write(step_record(step, loss=step + 0.25))
    log.rewind(10)
    log.write(step_record(20, loss=2.0))
    log.close()
    follower, path = MetricsFollower(tmp_path), tmp_path / "metrics.jsonl"
    content = path.read_bytes() + b'\x00\x00\n{"type": "step", "step": 30, "said": "a\xe2\x80\xa8b"}\n'
    for n_bytes in range(0, len(content) + 1, 7):
        path.write_bytes(content[:n_bytes])
        assert follower.records() == read_metrics(tmp_path)
    path.write_bytes(content)
    seen = follower.records()
    assert [record["step"] for record in seen] == [10, 20, 30] and seen == read_metrics(tmp_path)
    assert follower.records() is seen, "nothing has come, and nothing is done"


def test_a_run_that_begins_anew_while_it_is_followed_is_read_from_its_beginning(tmp_path: Path) -> None:
    follower, path = MetricsFollower(tmp_path), tmp_path / "metrics.jsonl"
    assert follower.records() == []
    path.write_text('{"type": "step", "step": 10}\n{"type": "step", "step": 20}\n')
    assert [record["step"] for record in follower.records()] == [10, 20]
    path.write_text('{"type": "step", "step": 1}\n')
    assert [record["step"] for record in follower.records()] == [1]
    other = tmp_path / "other"
    other.write_text('{"type": "step", "step": 2}\n{"type": "step", "step": 3}\n{"type": "step", "step": 4}\n')
    other.replace(path)
    assert [record["step"] for record in follower.records()] == [2, 3, 4]


def test_records_go_to_their_file_with_the_attempt(tmp_path: Path) -> None:
    log = RunLog(tmp_path, attempt=3)
    log.write(EvalRecord(5, 0.5, {"mel": 1.0}, {"alignment": 0.5}, 1.5, True, 0.1, samples=[object()]))  # type: ignore[list-item]
    log.write(Event(5, "saved", "step_00000005.pt"))
    log.close()
    (metric,), (event,) = read_jsonl(tmp_path / "metrics.jsonl"), read_jsonl(tmp_path / "events.jsonl")
    assert (metric["type"], metric["attempt"], metric["score"]) == ("eval", 3, 1.5) and "samples" not in metric
    assert (event["type"], event["kind"]) == ("event", "saved")


@pytest.mark.parametrize("half", [b'{"type": "step", "st', b'{"type": "step", "name": "\xc3'])
def test_a_half_written_last_line_is_passed_over_and_cut_on_reopening(tmp_path: Path, half: bytes) -> None:
    log = RunLog(tmp_path, attempt=1)
    log.write(step_record(10))
    log.close()
    with (tmp_path / "metrics.jsonl").open("ab") as f:
        f.write(half)
    assert [step for step, _ in steps_in(tmp_path)] == [10]
    log = RunLog(tmp_path, attempt=2)
    log.write(step_record(20))
    log.close()
    assert [step for step, _ in steps_in(tmp_path)] == [10, 20]
    assert half not in (tmp_path / "metrics.jsonl").read_bytes()


def test_blocks_that_a_power_cut_left_empty_cost_their_own_lines_only(tmp_path: Path) -> None:
    log = RunLog(tmp_path, attempt=1)
    for step in range(10, 60, 10):
        log.write(step_record(step))
    log.close()
    content = (tmp_path / "metrics.jsonl").read_bytes()
    second = content.index(b"\n") + 20
    (tmp_path / "metrics.jsonl").write_bytes(content[:second] + bytes(300) + content[second + 300 :])
    assert [step for step, _ in steps_in(tmp_path)] == [10, 40, 50]


@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_log_that_was_removed_begins_anew_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, is_replaced: bool
) -> None:
    log = RunLog(tmp_path / "run", attempt=1)
    log.write(Event(1, "saved", "first"))
    shutil.rmtree(tmp_path / "run")
    if is_replaced:
        (tmp_path / "run").mkdir()
        (tmp_path / "run/events.jsonl").touch()
    log.write(Event(2, "saved", "second"))
    log.write(Event(3, "saved", "third"))
    log.close()
    assert [event["step"] for event in read_jsonl(tmp_path / "run/events.jsonl")] == [2, 3]
    assert caplog.text.count("was removed while the run goes on: what it held is lost") == 1


def test_a_removed_log_that_cannot_begin_anew_is_tried_again(tmp_path: Path) -> None:
    log, path = RunLog(tmp_path, attempt=1), tmp_path / "events.jsonl"
    path.unlink()
    path.mkdir()
    log.write(Event(1, "saved", "first"))
    log.write(Event(2, "saved", "second"))
    path.rmdir()
    log.write(Event(3, "saved", "third"))
    log.close()
    assert [event["step"] for event in read_jsonl(path)] == [1, 2, 3]


def test_what_a_full_disk_refuses_waits_for_room(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = RunLog(tmp_path, attempt=1)
    log.write(step_record(10))
    size = (tmp_path / "metrics.jsonl").stat().st_size
    with disk_that_takes(size + 50), caplog.at_level(logging.WARNING, "tacotron2"):  # of half a line
        for step in (20, 30, 40):
            log.write(step_record(step))
        assert (tmp_path / "metrics.jsonl").stat().st_size == size, "a half line stayed"
    log.write(step_record(50))
    log.close()
    assert [step for step, _ in steps_in(tmp_path)] == [10, 20, 30, 40, 50]
    assert [r.getMessage() for r in caplog.records] == [
        f"{tmp_path}/metrics.jsonl can't be written (No space left on device): its lines wait until it can"
    ]


def test_lines_that_found_no_room_until_the_end_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = RunLog(tmp_path, attempt=1)
    with disk_that_takes(0), caplog.at_level(logging.WARNING, "tacotron2"):
        log.write(step_record(10))
        log.write(step_record(20))
        log.close()
    assert "lacks its newest 2 lines" in caplog.text


def test_a_run_without_metrics_reads_as_empty(tmp_path: Path) -> None:
    assert read_metrics(tmp_path) == []


def test_records_arrive_in_order_before_close() -> None:
    queued = BackgroundObserver(observer := Collector())
    queued.on_start(INFO)
    for step in range(100):
        queued.on_record(step_record(step))
    queued.close()
    assert observer.seen == list(range(100)) and observer.run is INFO and observer.is_closed and queued.dropped == 0


def test_an_observer_that_raises_is_switched_off_once(caplog: pytest.LogCaptureFixture) -> None:
    queued = BackgroundObserver(observer := Collector(fails_at=2))
    with caplog.at_level(logging.WARNING, "tacotron2"):
        for step in range(100):
            queued.on_record(step_record(step))
        queued.close()
    assert observer.seen == [0, 1]
    warnings = [r.getMessage() for r in caplog.records if "is off for the rest" in r.getMessage()]
    assert warnings == ["Collector is off for the rest of this run: RuntimeError: no connection"]


def test_an_observer_that_a_full_disk_refused_goes_on_when_there_is_room(caplog: pytest.LogCaptureFixture) -> None:
    class Refused(Collector):
        def on_record(self, record: Record) -> None:
            if record.step in (2, 3):
                raise OSError(errno.ENOSPC, "No space left on device")
            super().on_record(record)

    queued = BackgroundObserver(observer := Refused())
    with caplog.at_level(logging.WARNING, "tacotron2"):
        for step in range(6):
            queued.on_record(step_record(step))
        queued.close()
    assert observer.seen == [0, 1, 4, 5] and observer.is_closed
    assert caplog.text.count("Refused can't write") == 1


def test_a_stuck_observer_blocks_neither_records_nor_close(caplog: pytest.LogCaptureFixture) -> None:
    gate = threading.Event()
    queued = BackgroundObserver(observer := Collector(gate=gate), size=4, patience_s=0.1)
    began = time.perf_counter()
    with caplog.at_level(logging.WARNING, "tacotron2"):
        for step in range(500):
            queued.on_record(step_record(step))
        queued.close()
    assert time.perf_counter() - began < 5  # 0.1 s and room for a busy machine; the observer waits 20
    # one in the observer's hands, at most four queued, the last of which is the request to close
    assert 500 - 5 <= queued.dropped <= 500
    assert f"missed {queued.dropped} records" in caplog.text
    gate.set()
    queued.patience_s = 10
    queued.close()
    assert observer.is_closed and observer.seen[-1] == 499
