"""Threads wait asleep while other programs want the processors, and compute the same."""

import os
import subprocess
import sys
import time

import pytest

from benchmarks.busy_machine import busy
from common import busy_processors
from common.busy_processors import BusyProcessors, ProcessorTime
from common.processors import processors
from support.paths import REPOSITORY

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="libgomp is Linux' OpenMP")

SAME_SUMS = """
import os, time, torch
from common.busy_processors import IdlePool
from common.processors import processors
n_idle = max(2, len(processors()))
n_tasks = lambda: len(os.listdir("/proc/self/task"))
a, b = torch.rand(300, 700), torch.rand(700, 300)
work = lambda: (a.mm(b).tanh().sum().item(), (a * 3).exp().mean().item())
first, before = work(), n_tasks()
pool = IdlePool(2)
print(n_tasks() - before == n_idle, work() == first, torch.get_num_threads())
pool.close()
ends = time.monotonic() + 30  # libgomp's threads end after the one that made them
while n_tasks() != before and time.monotonic() < ends: time.sleep(0.05)
print(n_tasks() == before, work() == first)
"""


def until(seen: bool, watch: BusyProcessors) -> bool:
    deadline = time.monotonic() + 30
    while watch.wait_asleep != seen and time.monotonic() < deadline:
        time.sleep(0.05)
    return watch.wait_asleep


@pytest.mark.slow
def test_an_idle_pool_changes_no_sum_and_its_threads_end_with_it() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    done = subprocess.run(
        [sys.executable, "-c", SAME_SUMS], cwd=REPOSITORY, env=environment | {"OMP_NUM_THREADS": "2"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["True True 2", "True True"]


@pytest.mark.slow
def test_beside_busy_programs_threads_wait_asleep_and_awake_again_after(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(busy_processors, "PERIOD_S", 0.2)
    monkeypatch.setattr(busy_processors, "QUIET_S", 0.5)
    watch = BusyProcessors(len(processors()))
    try:
        with busy(len(processors())):
            assert until(True, watch)
        monkeypatch.setattr(busy_processors, "WANTED", 1e9)  # other tests may be busy still
        assert not until(False, watch)
    finally:
        watch.close()


def test_what_this_process_uses_is_not_others() -> None:
    earlier, later = ProcessorTime(clock=0, used=100, own=10), ProcessorTime(clock=2, used=104, own=11)
    assert later.others_since(earlier) == pytest.approx(1.5)
    assert ProcessorTime(clock=2, used=101, own=12).others_since(earlier) == 0


def test_a_busy_program_is_seen_in_processor_time() -> None:
    with busy(1):
        before = ProcessorTime.now()
        time.sleep(1)
        assert ProcessorTime.now().others_since(before) > 0.2


def test_how_the_user_lets_threads_wait_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    monkeypatch.setattr(busy_processors, "BusyProcessors", None)  # would be called
    with busy_processors.yielding_to_other_programs():
        pass
