"""How many processors this process may use: by files as the kernel has them, and in a real control group."""

import math
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from common import processors
from common.processors import n_processors, share_of_time
from support.paths import REPOSITORY

V1 = "3:cpuset:/\n2:cpu,cpuacct:/docker/0123\n1:memory:/docker/0123\n0::/\n"
GROUPS_V1 = Path("/sys/fs/cgroup/cpu")


@pytest.fixture
def as_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files that stand for the kernel's: `own` names the groups of this process, `groups` is their tree."""
    monkeypatch.setattr(processors, "OWN_GROUP", tmp_path / "own")
    monkeypatch.setattr(processors, "GROUPS", tmp_path / "groups")
    return tmp_path


def laid_out(root: Path, own: str, **files: str) -> None:
    (root / "own").write_text(own)
    for name, content in files.items():
        path = root / "groups" / name.replace("__", "/").replace("cpu_", "cpu.")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


@pytest.mark.parametrize(
    ("own", "files", "share"),
    [
        ("0::/\n", {"cpu_max": "150000 100000\n"}, 1.5),  # a container sees its own group as the top
        ("0::/a/b\n", {"a__b__cpu_max": "max 100000\n", "a__cpu_max": "50000 100000\n"}, 0.5),  # a group above it
        ("0::/a/b\n", {"a__b__cpu_max": "max 100000\n"}, math.inf),
        ("0::/machine/of/another\n", {"cpu_max": "200000 100000\n"}, 2.0),
        (V1, {"cpu__cpu_cfs_quota_us": "300000\n", "cpu__cpu_cfs_period_us": "100000\n"}, 3.0),
        (V1, {"cpu__cpu_cfs_quota_us": "-1\n", "cpu__cpu_cfs_period_us": "100000\n"}, math.inf),
        ("0::/\n", {}, math.inf),
    ],
)
def test_the_share_of_time_is_that_of_the_tightest_group(
    as_in: Path, own: str, files: dict[str, str], share: float
) -> None:
    laid_out(as_in, own, **files)
    assert share_of_time() == share


def test_where_groups_are_hidden_there_is_no_limit(as_in: Path) -> None:
    assert share_of_time() == math.inf
    assert n_processors() == len(processors.processors())


@pytest.mark.parametrize(("share", "threads"), [(0.2, 1), (1.0, 1), (1.5, 2), (400.0, 400)])
def test_threads_are_at_most_processors_and_at_least_one(
    as_in: Path, monkeypatch: pytest.MonkeyPatch, share: float, threads: int
) -> None:
    monkeypatch.setattr(processors, "processors", lambda: list(range(64)))
    laid_out(as_in, "0::/\n", cpu_max=f"{int(share * 100_000)} 100000\n")
    assert n_processors() == min(64, threads)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity here")
def test_processors_are_those_it_may_run_on() -> None:
    one = min(os.sched_getaffinity(0))
    code = f"import os; os.sched_setaffinity(0, [{one}]); from common.processors import n_processors as n; print(n())"
    assert subprocess.check_output([sys.executable, "-c", code], cwd=REPOSITORY, text=True) == "1\n"


@pytest.fixture
def half_a_processor() -> Iterator[Path]:
    """A control group of this machine with half a processor's time."""
    group = GROUPS_V1 / f"test-{uuid.uuid4().hex}"
    try:
        group.mkdir()
        (group / "cpu.cfs_quota_us").write_text("50000")
    except OSError as error:
        pytest.skip(f"no control group can be made here ({error})")
    yield group
    group.rmdir()


def test_a_process_in_a_group_with_half_a_processor_computes_with_one_thread(half_a_processor: Path) -> None:
    code = (
        "import os, sys; open(sys.argv[1], 'w').write(str(os.getpid()));"
        "import torch; torch.set_num_threads(4);"
        "from common.threads import keep_to_share; keep_to_share(); print(torch.get_num_threads())"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    said = subprocess.check_output(
        [sys.executable, "-c", code, str(half_a_processor / "cgroup.procs")], cwd=REPOSITORY, text=True, env=environment
    )
    assert said == "1\n"
