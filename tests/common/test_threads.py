"""Training computes with all threads, and what runs beside it makes no second pool."""

import os
import subprocess
import sys

import pytest

from support.paths import REPOSITORY

BESIDE = """
import os, threading, torch
{first}
n, work = torch.get_num_threads(), lambda: torch.ones(2000, 2000).exp_().mm(torch.ones(2000, 20))
work()
before = len(os.listdir("/proc/self/task"))
told = []
def beside():
    work()
    told.append((torch.get_num_threads(), len(os.listdir("/proc/self/task")) - before - 1))
helper = threading.Thread(target=beside)
helper.start()
helper.join()
print(torch.get_num_threads() == n, *told[0])
"""


def told(first: str) -> list[str]:
    """Whether the main thread kept its number; a helper's number, and how many threads it made for itself."""
    return subprocess.run(
        [sys.executable, "-c", BESIDE.format(first=first)], cwd=REPOSITORY,
        env=os.environ | {"OMP_NUM_THREADS": "2"}, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip


@pytest.mark.slow
def test_a_thread_beside_training_computes_alone_and_makes_no_pool_of_its_own() -> None:
    assert told("from common import threads; threads.one_thread_for_others()") == ["True", "1", "0"]


@pytest.mark.slow
def test_without_it_a_thread_beside_training_would_make_a_pool() -> None:
    """What the other test would show if it were not needed. Where there is one processor, no thread makes a pool."""
    n = min(2, os.cpu_count() or 1)
    assert told("") == ["True", str(n), str(n - 1)]
