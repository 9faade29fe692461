"""Systems as worker processes, which `peers` and `free_running` give orders to in turns."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PEERS = ("tacotron2-model", "coqui-tts", "speechbrain")
Answers = list[dict[str, Any]]


class Remote:
    """A worker process."""

    def __init__(self, name: str, python: str, threads: int) -> None:
        command = [python, str(Path(__file__).with_name("worker.py")), name, str(threads)]
        # huge pages as in train.py, for every system
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "THP_MEM_ALLOC_ENABLE": "1"}
        self.name = name
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self.greeting = self._answer()  # empty from one that does not start

    def ask(self, **order: object) -> dict[str, Any]:
        assert self.process.stdin
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        answer = self._answer()
        if not answer:
            sys.exit(f"{self.name} ended during {order}; run benchmarks/worker.py with it to see why")
        return answer

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        return json.loads(line) if line else {}

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(timeout=60)


def start(names: Sequence[str], python: str, threads: int) -> list[Remote]:
    """The workers that start; the others are named on stderr."""
    remotes = [Remote(name, python if name in PEERS else sys.executable, threads) for name in names]
    for remote in remotes:
        if not remote.greeting:
            print(f"{remote.name} does not start: not measured", file=sys.stderr)
    return [remote for remote in remotes if remote.greeting]


def machine() -> str:
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.machine(),
    )
    return f"{model}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}"
