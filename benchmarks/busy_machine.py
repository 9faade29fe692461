"""A training step alone and beside programs that keep processors busy: `python benchmarks/busy_machine.py`.

Steps of the demo voice's layers on a random batch, in processes of their own, in turns: with one thread, with two as
libgomp lets them wait, with two as training does (common/busy_processors.py), with two that always wait asleep.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

WAYS = {
    "one thread": {"OMP_NUM_THREADS": "1"},
    "two threads, awake": {},
    "two threads, as training does": {"YIELD": "1"},
    "two threads, asleep": {"OMP_WAIT_POLICY": "passive"},
}
B, T_MEL, T_TEXT = 16, 240, 60


def measure(n_steps: int) -> float:
    """In a process of its own: the median of so many steps, in seconds."""
    import torch

    from common.busy_processors import PERIOD_S, yielding_to_other_programs
    from common.threads import one_thread_for_others
    from hparams import resolve_hparams
    from model import Tacotron2

    torch.manual_seed(0)
    one_thread_for_others()
    model = Tacotron2(resolve_hparams(preset="demo").hparams).train()
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    text, mel = torch.randint(1, 148, (B, T_TEXT)), torch.randn(B, 80, T_MEL)
    lengths = torch.full((B,), T_TEXT), torch.full((B,), T_MEL)

    def step() -> float:
        began = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        out = model(text, lengths[0], mel, lengths[1])
        ((out.mel - mel).square().mean() + (out.mel_post - mel).square().mean()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return time.perf_counter() - began

    if "YIELD" not in os.environ:
        return statistics.median([step() for _ in range(n_steps + 2)][2:])
    with yielding_to_other_programs():
        time.sleep(2 * PERIOD_S)  # until it has looked
        return statistics.median([step() for _ in range(n_steps + 2)][2:])


def measured(way: str, n_steps: int) -> float:
    environment = {"OMP_NUM_THREADS": "2", **os.environ, **WAYS[way]}
    command = [sys.executable, __file__, "--measure", str(n_steps)]
    return float(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


@contextmanager
def busy(n: int) -> Iterator[None]:
    """n programs that never rest."""
    programs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n)]
    try:
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--steps", type=int, default=10)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--busy", type=int, nargs="+", default=[0, 1, 2], help="programs beside it")
    p.add_argument("--measure", type=int, metavar="STEPS", help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.measure:
        print(measure(args.measure))
        return
    seconds: dict[tuple[str, int], list[float]] = {}
    for _ in range(args.rounds):
        for n in args.busy:
            with busy(n):
                for way in WAYS:
                    seconds.setdefault((way, n), []).append(measured(way, args.steps))
    print("| s a step, median | " + " | ".join(f"{n} busy programs" for n in args.busy) + " |")
    print("|---" * (len(args.busy) + 1) + "|")
    for way in WAYS:
        print(f"| {way} | " + " | ".join(f"{statistics.median(seconds[way, n]):.2f}" for n in args.busy) + " |")


if __name__ == "__main__":
    main()
