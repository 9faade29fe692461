"""Speech without a teacher beside other implementations: `python benchmarks/free_running.py --python peers/bin/python`.

Milliseconds of a frame at full size, one text of 100 symbols, weights at random, the gate never stops; of the decoder
alone and of all (encoder and postnet too). Systems are processes of their own and take turns, as in `peers`, once for
each number of threads. `--texts 20` says how long a frame of so many texts at once takes here; the others say one.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from remote import PEERS, Answers, Remote, machine, start

OURS = ("ours", "ours, PyTorch alone", "ours, plain")
FRAME_S = 256 / 22050


@dataclass
class Spoken:
    """One system in one precision, and what its speech took."""

    remote: Remote
    precision: str
    answers: Answers = field(default_factory=list)

    def frame_ms(self, key: str) -> list[float]:
        return [1e3 * answer[key] / answer["frames"] for answer in self.answers]

    def median_ms(self, key: str) -> float:
        return statistics.median(self.frame_ms(key))


def voices_of(remotes: Sequence[Remote]) -> list[Spoken]:
    return [Spoken(remote, precision) for remote in remotes for precision in remote.greeting["precisions"]]


def say_in_turns(voices: Sequence[Spoken], *, rounds: int, frames: int, n_texts: int = 1) -> None:
    """A few frames to warm up and then all of them, each voice `rounds` times in turns."""
    for _ in range(rounds):
        for voice in voices:
            voice.remote.ask(do="get ready", precision=voice.precision, texts=n_texts)
            voice.remote.ask(do="speak", frames=16)
            voice.answers.append({"frames": frames, **voice.remote.ask(do="speak", frames=frames)})


def fastest_peer_ms(voices: Sequence[Spoken], key: str) -> float:
    return min((voice.median_ms(key) for voice in voices if voice.remote.name in PEERS), default=float("nan"))


def speech_table(voices: Sequence[Spoken]) -> str:
    """Medians of a frame in milliseconds, and how many times as fast as the fastest peer that is."""
    columns = ("decoder ms", "least", "CPU ms", "x peer", "by CPU", "all ms", "x peer", "real-time factor")
    lines = ["| system | " + " | ".join(columns) + " |", "|---" * (1 + len(columns)) + "|"]
    keys = ("decoder_seconds", "decoder_cpu_seconds", "seconds")
    clock, cpu, everything = (fastest_peer_ms(voices, key) for key in keys)
    for voice in voices:
        decoder, decoder_cpu, total = (voice.median_ms(key) for key in keys)
        least = min(voice.frame_ms("decoder_seconds"))
        lines.append(
            f"| {voice.remote.name}, {voice.precision} | {decoder:.3f} | {least:.3f} | {decoder_cpu:.3f} "
            f"| {clock / decoder:.2f} | {cpu / decoder_cpu:.2f} | {total:.3f} | {everything / total:.2f} "
            f"| {total / 1e3 / FRAME_S:.3f} |"
        )
    return "\n".join(lines).replace("nan", "-")  # without a peer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable, help="interpreter of the environment that has the peers")
    parser.add_argument("--threads", default="1,2", help="by commas")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--frames", type=int, default=400)
    parser.add_argument("--texts", type=int, default=1, help="at once; more than one leaves the others out")
    args = parser.parse_args()
    for n_threads in map(int, args.threads.split(",")):
        remotes = start((*OURS, *PEERS) if args.texts == 1 else OURS[:2], args.python, n_threads)
        voices = voices_of(remotes)
        if args.texts > 1:
            voices = [voice for voice in voices if voice.precision == "fp32"]
        try:
            say_in_turns(voices, rounds=args.rounds, frames=args.frames, n_texts=args.texts)
        finally:
            for remote in remotes:
                remote.close()
        print(f"{machine()}; {n_threads} threads, {args.texts} texts of 100 symbols, {args.frames} frames\n")
        print(speech_table(voices), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
