"""Time of a frame of free-running speech at full size: `python benchmarks/free_running.py --threads 1`.

The loop by definition, the fast one, its reduced precisions, and, where it is installed, the decoder of the package
tacotron2-model 0.2.4 with the same weights; one text of 100 symbols, weights at random, the gate never stops. Rounds
are interleaved, and ratios are medians over rounds, so that other work on the machine meets all alike. CPU time says
more than the clock on a busy machine.
"""

import argparse
import contextlib
import io
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

N_SYMBOLS = 100


def contestants(n_frames: int) -> dict[str, Callable[[], object]]:
    import torch

    from hparams import create_hparams
    from kernels.weights import SpeakingPrecision, lacks_for
    from model import DecodeLimits, Tacotron2

    torch.manual_seed(1)
    model = Tacotron2(create_hparams("")).eval()
    lengths = torch.tensor([N_SYMBOLS])
    memory = model.encode(torch.randint(1, 148, (1, N_SYMBOLS)), lengths)
    limits = DecodeLimits(n_frames, gate_threshold=2.0, frames_per_symbol=1e3, dwell_frames=10**9)

    def speaking(precision: SpeakingPrecision | None) -> Callable[[], object]:
        model.decoder.prepare_to_speak(precision or "fp32")
        prepared = model.decoder.prepared

        def speak() -> None:
            model.decoder.backend, model.decoder.prepared = "fast" if precision else "plain", prepared
            model.decoder.infer(memory, lengths, limits, torch.Generator().manual_seed(1))

        return speak

    precisions: tuple[SpeakingPrecision, ...] = ("fp32", "bf16", "int8")
    named: dict[str, Callable[[], object]] = {"plain": speaking(None)}
    named |= {precision: speaking(precision) for precision in precisions if lacks_for(precision) is None}
    with contextlib.suppress(ImportError):
        from tacotron2_model import Tacotron2 as Other

        other = Other(max_decoder_steps=n_frames, gate_threshold=2.0).eval()
        other.load_state_dict(model.state_dict())

        def speak_other() -> None:
            with contextlib.redirect_stdout(io.StringIO()):  # it prints that it was cut
                other.decoder.inference(memory)

        return {"tacotron2-model": speak_other} | named
    return named


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--rounds", type=int, default=9)
    p.add_argument("--frames", type=int, default=200)
    args = p.parse_args()
    import torch

    torch.set_num_threads(args.threads)
    with torch.no_grad():
        named = contestants(args.frames)
        clock: dict[str, list[float]] = {name: [] for name in named}
        cpu: dict[str, list[float]] = {name: [] for name in named}
        for _ in range(args.rounds + 1):
            for name, speak in named.items():
                began, cpu_began = time.perf_counter(), time.process_time()
                speak()
                clock[name].append((time.perf_counter() - began) / args.frames)
                cpu[name].append((time.process_time() - cpu_began) / args.frames)
    first = next(iter(named))
    print(f"ms a frame (11.6 ms of sound), {args.threads} threads, {args.rounds} rounds; ratios to {first}")
    for name in named:
        wall, used = clock[name][1:], cpu[name][1:]  # the first round loads libraries
        ratio = statistics.median(a / b for a, b in zip(cpu[first][1:], used, strict=True))
        by_clock = statistics.median(a / b for a, b in zip(clock[first][1:], wall, strict=True))
        print(
            f"{name:16} clock {1e3 * statistics.median(wall):.2f}, best {1e3 * min(wall):.2f}; "
            f"CPU {1e3 * statistics.median(used):.2f}; {ratio:.2f} times as fast by CPU, {by_clock:.2f} by the clock"
        )


if __name__ == "__main__":
    main()
