"""What a search itself costs beside its trials, in processor time: `python benchmarks/search_cost.py -o FOLDER -- ...`

What follows `--` goes to `train.py --optimize-hyperparams`, as in `-- --preset demo --n-trials 3 --max-steps 114`. Each
process is asked (psutil), so a busy machine does no harm. Before the first trial the search imports PyTorch and reads
the corpus, after the last one it draws pictures; the share that grows with the study is that of between.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

REPOSITORY = Path(__file__).resolve().parent.parent

LOOK_EVERY_S = 0.5  # a look takes some milliseconds itself


@dataclass(frozen=True)
class Look:
    """At one moment. own_s: of the search's process; trials_s: of the processes that it has started."""

    own_s: float
    trials_s: float
    n_trials: int


@dataclass(frozen=True)
class Cost:
    """Processor time of the search's own process, by when, and of all its trials; both in seconds."""

    before_s: float
    between_s: float
    after_s: float
    trials_s: float

    @property
    def own_s(self) -> float:
        return self.before_s + self.between_s + self.after_s

    def __str__(self) -> str:
        parts = (("before the first trial", self.before_s), ("from the first to the last", self.between_s),
                 ("after the last", self.after_s), ("the search in all", self.own_s))  # fmt: skip
        shown = [f"{name}: {spent:.1f} s, {100 * spent / self.trials_s:.2f} %" for name, spent in parts]
        return "\n".join([f"trials: {self.trials_s:.1f} s of processor time", *shown])


def looks(process: subprocess.Popen[bytes]) -> Iterator[Look]:
    """Until it ends."""
    search = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            times, trials = search.cpu_times(), [_spent(child) for child in search.children()]
        except psutil.Error:  # it has just ended
            break
        ended_s = times.children_user + times.children_system
        yield Look(times.user + times.system, ended_s + sum(trials), len(trials))
        time.sleep(LOOK_EVERY_S)


def _spent(trial: psutil.Process) -> float:
    """With the processes that it has waited for, such as those that read its corpus."""
    try:
        times = trial.cpu_times()
    except psutil.Error:
        return 0.0
    return times.user + times.system + times.children_user + times.children_system


def cost(command: list[str], *, environment: dict[str, str]) -> tuple[Cost, int]:
    """Of a whole search. -> its exit code too"""
    process = subprocess.Popen(command, env=environment)
    seen = list(looks(process))
    exit_code = process.wait()
    busy = [i for i, look in enumerate(seen) if look.n_trials]
    if not busy:
        sys.exit(f"no trial was seen; the search ended with exit code {exit_code}")
    first, last, end = seen[busy[0]], seen[busy[-1]], seen[-1]
    return Cost(first.own_s, last.own_s - first.own_s, end.own_s - last.own_s, end.trials_s), exit_code


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("-o", "--output", type=Path, required=True, help="a folder for the search")
    p.add_argument("more", nargs="*", help="what goes to train.py, after --")
    args = p.parse_args()
    places = ["-o", str(args.output / "output"), "-l", str(args.output / "logs")]
    command = [sys.executable, str(REPOSITORY / "train.py"), *places, "--optimize-hyperparams", *args.more]
    began = time.monotonic()
    spent, exit_code = cost(command, environment=dict(os.environ))
    print(f"the command took {time.monotonic() - began:.0f} s by the clock\n{spent}")
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
