"""Signs of life: who has stood still for too long, and who only waits for what may take long."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from parallel.heartbeat import FOLDER, Pulse, Watch, pulse_of
from parallel.process_group import Group


def age(path: Path, seconds: float) -> None:
    os.utime(path, (time.monotonic() - seconds,) * 2)


@pytest.fixture
def watch(tmp_path: Path) -> Watch:
    """Of two processes that have moved just now, begun long before."""
    watch = Watch(tmp_path, timeout_s=10)
    watch._since -= 1000
    for rank in "01":
        Pulse(tmp_path / rank)
    return watch


def test_who_moves_does_not_stand(watch: Watch) -> None:
    assert watch.standing() is None


def test_who_has_stood_still_for_longest_is_named(watch: Watch) -> None:
    age(watch.folder / "0", 20)
    age(watch.folder / "1", 30)
    assert watch.standing() == 1
    assert watch.standing(ended=[1]) == 0
    watch.forget()
    assert watch.standing() is None


def test_who_said_that_it_will_take_long_does_not_stand(watch: Watch) -> None:
    pulse = Pulse(watch.folder / "0")
    pulse.beat(patience_s=100)
    os.utime(watch.folder / "0", ((watch.folder / "0").stat().st_mtime - 50,) * 2)  # so much later
    assert watch.standing() is None
    pulse.beat()
    age(watch.folder / "0", 50)
    assert watch.standing() == 0


def test_when_the_launcher_was_stopped_as_well_nobody_hangs(watch: Watch) -> None:
    """Ctrl-Z, a suspended job, a closed lid."""
    for rank in "01":
        age(watch.folder / rank, 3600)
    watch._looked_at -= 3600
    assert watch.standing() is None


def test_without_a_launcher_that_watches_there_is_no_pulse(tmp_path: Path) -> None:
    assert pulse_of(0, {}).path is None
    pulse_of(0, {}).beat()
    assert pulse_of(3, {FOLDER: str(tmp_path)}).path == tmp_path / "3"


def test_every_step_and_every_validation_batch_is_a_sign_of_life_and_work_for_all_is_waited_for(tmp_path: Path) -> None:
    group, path = Group(pulse=Pulse(tmp_path / "0")), tmp_path / "0"

    def ahead_s() -> float:
        """How far the pulse is ahead of now, then forgotten."""
        found = path.stat().st_mtime - time.monotonic()
        age(path, 1000)
        return found

    def moved(_: object) -> bool:
        return -5 < ahead_s() <= 0

    def batches() -> Iterator[int]:
        yield from range(3)

    ahead_s()
    assert moved(group.greatest(1))
    assert all(moved(batch) for batch in group.beating(batches()))
    group.rest()
    assert ahead_s() > 3600
    for agreed in (group.from_first, group.in_turn):
        assert agreed(ahead_s) > 3600
        assert moved(None)
