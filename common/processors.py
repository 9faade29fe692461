"""How many processors a process may use: those that it may run on, and no more than its group's share of their time.

A container with `--cpus 2` on a machine of 64 sees all 64 and may run on each. A program that starts 64 threads there
uses up its share in a thirty-second part of the time, and all its threads stand still for the rest.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path

GROUPS, OWN_GROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def processors() -> list[int]:
    """Numbers of those on which this process may run."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def n_processors() -> int:
    """How many threads can compute at once; at least 1."""
    return max(1, math.ceil(min(len(processors()), share_of_time())))


def share_of_time() -> float:
    """Processors' worth of time that this process's control groups allow, such as 1.5; inf without a limit."""
    return min((_limit(folder) for folder in _own_groups()), default=math.inf)


def _own_groups() -> Iterator[Path]:
    """This process's groups that may limit its time, and all above them, in both versions of control groups."""
    try:
        lines = OWN_GROUP.read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux, or hidden
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            top = GROUPS
        elif "cpu" in controllers.split(","):
            top = GROUPS / "cpu"
        else:
            continue
        # A container sees its own group as the top one, though the path may be that of the machine.
        inner = Path(path.lstrip("/"))
        yield from (top / part for part in (inner, *inner.parents))


def _limit(group: Path) -> float:
    """Of one group; inf where it has none or is not seen from here."""
    try:
        if (group / "cpu.max").is_file():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        return int(quota) / int(period) if int(quota) > 0 else math.inf  # ValueError: "max"
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf
