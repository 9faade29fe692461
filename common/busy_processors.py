"""Whether other programs want the processors, and how the threads of a step wait while they do.

OpenMP's threads wait awake for their next part, which is soon there: a step has thousands of small parallel parts.
Where another program has taken a processor, each part waits for a thread that waits for that program, and steps take
several times as long. libgomp lets all threads wait asleep while it manages more of them than there are processors.
So an idle pool of threads switches that on and its end switches it off. No sum changes. Figures: docs/performance.md.
"""

import ctypes
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from common.log import LOG
from common.processors import processors

PERIOD_S = 1.0
WANTED = 0.25  # of a processor: less is the work of any desktop
QUIET_S = 10.0  # before threads wait awake again
CHOSEN_BY_USER = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


@dataclass(frozen=True)
class ProcessorTime:
    """Seconds since some beginning: `used` by all programs on this process's processors, `own` by this process."""

    clock: float
    used: float
    own: float

    @classmethod
    def now(cls) -> "ProcessorTime":
        every = psutil.cpu_times(percpu=True)
        mine = [every[i] for i in processors() if i < len(every)]
        used = sum(sum(times) - times.idle - getattr(times, "iowait", 0.0) - guest_s(times) for times in mine)
        own = psutil.Process().cpu_times()
        return cls(time.monotonic(), used, own.user + own.system)

    def others_since(self, earlier: "ProcessorTime") -> float:
        """Processors that other programs used meanwhile, such as 1.5."""
        seconds = self.clock - earlier.clock
        return max(0.0, (self.used - earlier.used) - (self.own - earlier.own)) / seconds if seconds > 0 else 0.0


def guest_s(times: object) -> float:
    """A guest's time, which Linux counts within `user` and `nice` too."""
    return getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)


def libgomps() -> list[str]:
    """Files of GNU's OpenMP that this process has loaded: usually PyTorch's own, none outside Linux."""
    maps = Path("/proc/self/maps")
    lines = maps.read_text().splitlines() if maps.exists() else []
    return sorted({line.split(maxsplit=5)[5] for line in lines if "libgomp" in line})


class IdlePool:
    """OpenMP threads that do nothing; with the n_threads that compute they are more than the processors."""

    def __init__(self, n_threads: int) -> None:
        self._n_idle = max(2, len(processors()) - n_threads + 2)  # under two would be no pool
        self._end, self._made = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._hold, name="idle pool", daemon=True)
        self._thread.start()
        self._made.wait()

    def _hold(self) -> None:
        nothing = ctypes.cast(ctypes.CDLL(None).free, ctypes.c_void_p)  # free(NULL), as each thread's part of the work
        for path in libgomps():
            ctypes.CDLL(path).GOMP_parallel(nothing, None, ctypes.c_uint(self._n_idle), ctypes.c_uint(0))
        self._made.set()
        self._end.wait()

    def close(self) -> None:
        self._end.set()
        self._thread.join()


class BusyProcessors:
    """Looks every second whether other programs leave this one fewer processors than it has threads."""

    def __init__(self, n_threads: int) -> None:
        self._n_threads = n_threads
        self._end, self._was_told = threading.Event(), False
        self._pool: IdlePool | None = None
        self._thread = threading.Thread(target=self._watch, name="busy processors", daemon=True)
        self._thread.start()

    @property
    def wait_asleep(self) -> bool:
        return self._pool is not None

    def _watch(self) -> None:
        before, busy_at = ProcessorTime.now(), 0.0
        while not self._end.wait(PERIOD_S):
            now = ProcessorTime.now()
            others = now.others_since(before)
            before = now
            if others > WANTED and len(processors()) - others < self._n_threads:
                busy_at = now.clock
                self._fall_asleep(others)
            elif now.clock - busy_at > QUIET_S:
                self._wake_up()

    def _fall_asleep(self, others: float) -> None:
        if self._pool is not None:
            return
        self._pool = IdlePool(self._n_threads)
        say = LOG.debug if self._was_told else LOG.info
        text = "other programs use %.1f of %d processors: training leaves them room meanwhile; results stay the same"
        say(text, others, len(processors()))
        self._was_told = True

    def _wake_up(self) -> None:
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def close(self) -> None:
        self._end.set()
        self._thread.join()
        self._wake_up()


@contextmanager
def yielding_to_other_programs() -> Iterator[None]:
    """Within it the threads of a step wait asleep whenever other programs want the processors.

    Nothing where the user chose how they wait, where one thread computes, or where OpenMP is another than libgomp.
    """
    import torch

    n_threads = torch.get_num_threads()
    if n_threads == 1 or not libgomps() or any(name in os.environ for name in CHOSEN_BY_USER):
        yield
        return
    watch = BusyProcessors(n_threads)
    try:
        yield
    finally:
        watch.close()
