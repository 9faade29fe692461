"""The training step beside other implementations: `python benchmarks/peers.py --python peers/bin/python`.

Each system is a process of its own (`worker`); they take turns, so that what else the machine does meets all of them,
and medians and ratios are of the same rounds. `benchmarks/requirements.txt` says how to install the others; a system
that does not start is left out and named. On a busy machine `--clock cpu_seconds --threads 1` tells more than the clock
on the wall.
"""

import argparse
import json
import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from free_running import say_in_turns, speech_table, voices_of
from remote import PEERS, Answers, Remote, machine, start
from systems import BUILDERS, Shape, training_flops


@dataclass
class Row:
    """One system in one precision, and what its steps took."""

    remote: Remote
    bf16: bool
    answers: Answers = field(default_factory=list)

    @property
    def label(self) -> str:
        return f"{self.remote.name}, {'bf16' if self.bf16 else 'fp32'}"

    def median(self, key: str) -> float:
        return statistics.median(answer[key] for answer in self.answers)


def take_turns(rows: Sequence[Row], shape: Shape, *, rounds: int) -> None:
    """One step to warm up each, on a short batch, then `rounds` steps in turns."""
    for row in rows:
        row.remote.ask(do="step", bf16=row.bf16, shape=[shape.B, 10, shape.T_text])
    for done in range(rounds):
        for row in rows:
            answer = row.remote.ask(do="step", bf16=row.bf16, shape=[shape.B, shape.T_mel, shape.T_text])
            row.answers.append(answer)
            print(f"{done} {row.label:32} {json.dumps(answer)}", file=sys.stderr, flush=True)


def fastest_peer(rows: Sequence[Row], *, bf16: bool, key: str) -> float:
    return min((row.median(key) for row in rows if row.remote.name in PEERS and row.bf16 == bf16), default=float("nan"))


def table(rows: Sequence[Row], shape: Shape, ceilings: dict[str, float], key: str) -> str:
    """Medians, and the fastest peer's median over each system's."""
    fp32, bf16 = (fastest_peer(rows, bf16=half, key=key) for half in (False, True))
    memory = min((row.median("peak_gib") for row in rows if row.remote.name in PEERS), default=float("nan"))
    columns = ("median s", "least s", "x fastest peer, fp32", "x fastest peer, bf16", "of the ceiling", "peak GiB")
    lines = ["| system | " + " | ".join((*columns, "of the least peer's")) + " |", "|---" * 8 + "|"]
    for row in rows:
        seconds, least = row.median(key), min(answer[key] for answer in row.answers)
        rate = training_flops(shape) / seconds / ceilings["bf16" if row.bf16 else "fp32"]
        peak = row.median("peak_gib")
        cells = f"{seconds:.2f} | {least:.2f} | {fp32 / seconds:.2f} | {bf16 / seconds:.2f} | {rate:.0%}"
        lines.append(f"| {row.label} | {cells} | {peak:.2f} | {peak / memory:.2f} |")
    return "\n".join(lines)


def ceilings_of(remote: Remote, key: str, *, times: int) -> dict[str, float]:
    """The best rates of matrix products seen, operations a second of that clock."""
    seen = [remote.ask(do="products", clock=key) for _ in range(times)]
    return {name: max(rates[name] for rates in seen) for name in seen[0]}


def measure_mels(remotes: Sequence[Remote]) -> str:
    """Milliseconds a second of sound, by extractor; the least over the workers that have it."""
    best: dict[str, float] = {}
    for remote in remotes:
        for name, seconds in remote.ask(do="mel").items():
            best[name] = min(seconds, best.get(name, seconds))
    rows = [f"| {name} | {seconds / 6e-3:.2f} |" for name, seconds in best.items()]
    return "\n".join(["| extractor | ms a second |", "|---|---|", *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", default=sys.executable, help="interpreter of the environment that has the peers")
    ours = ("ours", "ours, PyTorch alone", "ours, plain")
    parser.add_argument("--systems", default=";".join((*ours, *PEERS)), help="by semicolons")
    parser.add_argument("--precisions", default="fp32,bf16")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--clock", choices=("seconds", "cpu_seconds"), default="seconds")
    parser.add_argument("-B", type=int, default=16)
    parser.add_argument("--frames", type=int, default=800)
    parser.add_argument("--symbols", type=int, default=120)
    args = parser.parse_args()
    names = args.systems.split(";")
    if unknown := sorted(set(names) - set(BUILDERS)):
        sys.exit(f"--systems: {unknown} are not among {list(BUILDERS)}")
    shape = Shape(args.B, args.frames, args.symbols)
    remotes = start(names, args.python, args.threads)
    precisions = [name == "bf16" for name in args.precisions.split(",")]
    rows = [Row(remote, bf16) for remote in remotes for bf16 in precisions]
    products = Remote("products", sys.executable, args.threads)
    try:
        before = ceilings_of(products, args.clock, times=2)
        take_turns(rows, shape, rounds=args.rounds)
        after = ceilings_of(products, args.clock, times=2)
        ceilings = {name: max(before[name], after[name]) for name in before}
        print(f"{machine()}; {args.threads} threads; B={shape.B}, {shape.T_mel} frames, {shape.T_text} symbols")
        print(", ".join(f"{name} products {rate / 1e9:.0f} GFLOP/s" for name, rate in ceilings.items()), end="\n\n")
        print(table(rows, shape, ceilings, args.clock), end="\n\n")
        voices = voices_of(remotes)
        say_in_turns(voices, rounds=args.rounds, frames=200)
        print(speech_table(voices), end="\n\n")
        print(measure_mels(remotes))
    finally:
        for remote in (*remotes, products):
            remote.close()


if __name__ == "__main__":
    main()
