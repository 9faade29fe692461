"""Speaks with a trained voice: `python synthesize.py -c output "Hello there." -o hello.wav`; see README.md."""

import argparse
import sys
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

from common.cli import Parser, int_at_least, run_command
from common.errors import UserError
from common.files import explain_write_errors
from config.hparam_switch import like_hparam

if TYPE_CHECKING:  # torch takes seconds to import; --help doesn't need it
    from speech.voice import Utterance


def parser() -> Parser:
    p = Parser(description=__doc__)
    add = p.add_argument
    add("text", nargs="+", help="what to say; several texts make several files")
    add(
        "-c", "--checkpoint-path", type=Path, required=True, metavar="RUN_OR_PT", help="a run directory or a checkpoint"
    )
    add("-o", "--output", type=Path, default=Path("speech.wav"), metavar="WAV", help="where to (default speech.wav)")
    add(
        "--seed",
        type=like_hparam("seed"),
        default=1234,
        help="of the prenet's dropout and the phases; the same seed says it the same way",
    )
    add(
        "--gate-threshold",
        type=like_hparam("gate_threshold"),
        metavar="P",
        help="stop probability that ends an utterance (default: the voice's own)",
    )
    add(
        "--griffin-lim-iterations", type=int_at_least(1), default=60, metavar="N", help="more: slower, a little cleaner"
    )
    add(
        "--precision",
        choices=["fp32", "bf16", "int8", "auto"],
        default="fp32",
        help="of the decoder's weights: less is faster, and as good; auto: the fastest here (default fp32)",
    )
    add("--speaker", metavar="NAME", help="whose voice, of a voice trained on several")
    style = p.add_mutually_exclusive_group()
    style.add_argument("--style-from", type=Path, metavar="WAV", help="speak in the manner of a recording")
    style.add_argument(
        "--style-token", type=int_at_least(0), metavar="K", help="speak in the manner of one style token, from 0"
    )
    add("--style-weight", type=float, metavar="W", help="of that token (default 1; less is milder, negative opposite)")
    add(
        "--no-enhancement",
        action="store_true",
        help="the sound as the vocoder leaves it: no de-noising, no trimming, no loudness normalisation",
    )
    add("--no-pictures", action="store_true", help="only the wav, no picture of alignment, mel and gate")
    return p


def output_paths(output: Path, count: int) -> list[Path]:
    """One text: as given. Several: numbered in front of the suffix."""
    if output.suffix.lower() != ".wav":
        raise UserError(f"-o {output}: the suffix must be .wav")
    if count == 1:
        return [output]
    return [output.with_name(f"{output.stem}_{i + 1}{output.suffix}") for i in range(count)]


def style_weight(args: argparse.Namespace) -> float:
    """What --style-weight says, or 1. It has no meaning without a token, and none that is not finite."""
    if args.style_weight is None:
        return 1.0
    if args.style_token is None:
        raise UserError("--style-weight is the weight of a --style-token; add one")
    if not isfinite(args.style_weight):
        raise UserError(f"--style-weight {args.style_weight}: must be a finite number")
    return float(args.style_weight)


def say(utterances: Sequence["Utterance"], paths: Sequence[Path], *, pictures: bool) -> bool:
    """Writes files and one line for each. -> whether all stopped by themselves."""
    from audio.recordings import write_wav
    from monitoring.plots import save_png
    from monitoring.sample_files import figure_of

    for utterance, path in zip(utterances, paths, strict=True):
        sample = utterance.sample
        with explain_write_errors(f"-o {path}", next_step="free space there, or name another place"):
            write_wav(path, utterance.wav, sample.sampling_rate)
            if pictures:
                save_png(figure_of(sample), path.with_suffix(".png"))
        print(f"{path}: {len(utterance.wav) / sample.sampling_rate:.2f} s, {utterance.verdict}")
    return all(u.sample.stop_reason == "gate" for u in utterances)


def run(args: argparse.Namespace) -> int:
    paths = output_paths(args.output, len(args.text))
    weight = style_weight(args)
    from speech.voice import Speaker

    speaker = Speaker.load(args.checkpoint_path, gate_threshold=args.gate_threshold, precision=args.precision)
    style = None
    if args.style_from is not None:
        style = speaker.style_from(args.style_from)
    elif args.style_token is not None:
        style = speaker.style_token(args.style_token, weight)
    utterances = speaker.speak(
        args.text,
        seed=args.seed,
        n_iter=args.griffin_lim_iterations,
        name=args.speaker,
        style=style,
        enhanced=speaker.hp.use_audio_quality_enhancement and not args.no_enhancement,
    )
    say(utterances, paths, pictures=not args.no_pictures)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(lambda: run(parser().parse_args(argv)))


if __name__ == "__main__":
    sys.exit(main())
