"""Speaks with an exported voice, without torch: `python -m player anna.zip "Hello there." -o hello.wav`."""

import argparse
import sys
import time
import wave
from collections.abc import Sequence
from pathlib import Path

from common.cli import Parser, int_at_least, run_command
from common.errors import UserError
from common.files import atomic_file, explain_write_errors


def parser() -> Parser:
    p = Parser(prog="python -m player", description=__doc__)
    add = p.add_argument
    add("voice", type=Path, help="a .zip written by export.py")
    add("text", nargs="?", help="text to say (default: read from standard input)")
    add("-o", "--output", type=Path, default=Path("speech.wav"), metavar="WAV", help="the sound (default speech.wav)")
    add("--speaker", metavar="NAME", help="speaker to use, if the voice has several")
    add("--seed", type=int_at_least(0), default=1234, help="the same seed gives the same audio (default 1234)")
    iterations = "used if the file has no vocoder (default 60)"
    add("--griffin-lim-iterations", type=int_at_least(1), default=60, metavar="N", help=iterations)
    add("--threads", type=int_at_least(0), default=0, metavar="N", help="threads (default: onnxruntime chooses)")
    return p


def speak(args: argparse.Namespace) -> int:
    import numpy as np

    from player.voice import OnnxVoice

    if args.output.suffix.lower() != ".wav":
        raise UserError(f"-o {args.output}: what is written is a wav; name a file that ends in .wav")
    voice = OnnxVoice.load(args.voice, n_threads=args.threads)
    if args.text is None and sys.stdin.isatty():
        print("type the text to say, and end it with Ctrl-D", file=sys.stderr)
    text = sys.stdin.read() if args.text is None else args.text
    began, n_samples = time.perf_counter(), 0
    pieces = voice.stream(text, speaker=args.speaker, seed=args.seed, n_iter=args.griffin_lim_iterations)
    with (
        explain_write_errors(f"-o {args.output}", next_step="free space there, or name another place"),
        atomic_file(args.output) as file,
        wave.open(file, "wb") as wav,
    ):
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(voice.sampling_rate)
        for piece in pieces:
            wav.writeframes(np.clip(np.rint(piece * 32768), -32768, 32767).astype("<i2").tobytes())
            n_samples += len(piece)
    duration_s = n_samples / voice.sampling_rate
    factor = (time.perf_counter() - began) / max(duration_s, 1e-9)
    print(f"{args.output}: {duration_s:.2f} s; real-time factor {factor:.2f}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(lambda: speak(parser().parse_args(argv)))


if __name__ == "__main__":
    sys.exit(main())
