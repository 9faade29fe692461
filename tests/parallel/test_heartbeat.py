"""Signs of life: who has stood still for too long, and who only waits for what may take long."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from parallel.heartbeat import FOLDER_VARIABLE, Heartbeat, HeartbeatMonitor, heartbeat_of
from parallel.process_group import ProcessGroup


def age(path: Path, seconds: float) -> None:
    os.utime(path, (time.monotonic() - seconds,) * 2)


@pytest.fixture
def watch(tmp_path: Path) -> HeartbeatMonitor:
    """Of two processes that have moved just now, begun long before."""
    watch = HeartbeatMonitor(tmp_path, timeout_s=10)
    watch._since -= 1000
    for rank in "01":
        Heartbeat(tmp_path / rank)
    return watch


def test_who_moves_does_not_stand(watch: HeartbeatMonitor) -> None:
    assert watch.find_hung() is None


def test_who_has_stood_still_for_longest_is_named(watch: HeartbeatMonitor) -> None:
    age(watch.folder / "0", 20)
    age(watch.folder / "1", 30)
    assert watch.find_hung() == 1
    assert watch.find_hung(ended=[1]) == 0
    watch.reset()
    assert watch.find_hung() is None


def test_who_said_that_it_will_take_long_does_not_stand(watch: HeartbeatMonitor) -> None:
    heartbeat = Heartbeat(watch.folder / "0")
    heartbeat.beat(patience_s=100)
    os.utime(watch.folder / "0", ((watch.folder / "0").stat().st_mtime - 50,) * 2)  # so much later
    assert watch.find_hung() is None
    heartbeat.beat()
    age(watch.folder / "0", 50)
    assert watch.find_hung() == 0


def test_when_the_launcher_was_stopped_as_well_nobody_hangs(watch: HeartbeatMonitor) -> None:
    """Ctrl-Z, a suspended job, a closed lid."""
    for rank in "01":
        age(watch.folder / rank, 3600)
    watch._looked_at -= 3600
    assert watch.find_hung() is None


def test_without_a_launcher_that_watches_there_is_no_heartbeat(tmp_path: Path) -> None:
    assert heartbeat_of(0, {}).path is None
    heartbeat_of(0, {}).beat()
    assert heartbeat_of(3, {FOLDER_VARIABLE: str(tmp_path)}).path == tmp_path / "3"


def test_every_step_and_every_validation_batch_is_a_sign_of_life_and_work_for_all_is_waited_for(tmp_path: Path) -> None:
    group, path = ProcessGroup(heartbeat=Heartbeat(tmp_path / "0")), tmp_path / "0"

    def ahead_s() -> float:
        """How far the heartbeat is ahead of now, then forgotten."""
        found = path.stat().st_mtime - time.monotonic()
        age(path, 1000)
        return found

    def moved(_: object) -> bool:
        return -5 < ahead_s() <= 0

    def batches() -> Iterator[int]:
        yield from range(3)

    ahead_s()
    assert moved(group.all_reduce_max(1))
    assert all(moved(batch) for batch in group.with_heartbeat(batches()))
    group.long_operation()
    assert ahead_s() > 3600
    for agreed in (group.run_on_rank0, group.run_one_at_a_time):
        assert agreed(ahead_s) > 3600
        assert moved(None)
