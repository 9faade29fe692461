"""Exports a voice as one file: `python export.py -c output -o anna.safetensors`, or .zip for ONNX."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from common.cli import Parser, run_command
from common.errors import UserError
from common.files import check_place, explain_write_errors

if TYPE_CHECKING:  # torch takes seconds to import; --help doesn't need it
    from exporting.files import Exported

EXAMPLES = """examples:
  python export.py -c output -o anna.safetensors --licence "CC BY 4.0" --origin "recordings of Anna, 2026"
  python export.py -c output -o anna.zip --vocoder universal --evaluation judged
  python -m player anna.zip "Hello there." -o hello.wav
"""
PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def parser() -> Parser:
    p = Parser(description=__doc__, epilog=EXAMPLES)
    add = p.add_argument
    voice = "a run directory, a checkpoint or an exported voice"
    add("-c", "--checkpoint-path", required=True, type=Path, metavar="VOICE", help=voice)
    kinds = "NAME.safetensors for the commands here, NAME.zip for the player without torch"
    add("-o", "--output", required=True, type=Path, metavar="FILE", help=kinds)
    add("--licence", metavar="TEXT", help="licence of the recordings, and so of the voice")
    add("--origin", metavar="TEXT", help="who speaks in the recordings, and where they come from")
    add("--evaluation", type=Path, metavar="DIR", help="folder that evaluate.py wrote: figures for the voice's card")
    vocoder = "with .zip: the vocoder to include, as ONNX (default griffin-lim); see synthesize.py"
    add("--vocoder", default="griffin-lim", metavar="NAME|FILE", help=vocoder)
    add("--int8", action="store_true", help="with .zip: a smaller file with 8-bit weights; the sound differs slightly")
    return p


def check_packages() -> None:
    from importlib.util import find_spec

    lacking = [name for name in PACKAGES if find_spec(name) is None]
    if lacking:
        raise UserError(f"a .zip needs {', '.join(lacking)}: pip install -r requirements-export.txt")


def export(args: argparse.Namespace) -> "Exported":
    from exporting.card import card_of
    from exporting.files import check_suffix, export_onnx, export_safetensors
    from speech.voice import Voice

    suffix = check_suffix(args.output)
    card = card_of(args.output.stem, licence=args.licence, origin=args.origin, evaluation=args.evaluation)
    with explain_write_errors(f"-o {args.output}", next_step="free space there, or name another place"):
        check_place(args.output)
        if suffix == ".zip":
            check_packages()
            voice = Voice.load(args.checkpoint_path, vocoder=args.vocoder, device="cpu")
            return export_onnx(voice, args.output, card, is_int8=args.int8)
        if args.int8 or args.vocoder != "griffin-lim":
            raise UserError("--int8 and --vocoder are for ONNX: name a .zip after -o")
        return export_safetensors(args.checkpoint_path, args.output, card)


def run(args: argparse.Namespace) -> int:
    exported = export(args)
    print(f"{exported.path}: {exported.n_bytes / 1e6:.1f} MB")
    for name, difference in exported.largest_difference.items():
        print(f"  {name}: differs from torch by {difference:.1e} at most" + (" before int8" if args.int8 else ""))
    lacking = [f"--{name}" for name in ("licence", "origin") if getattr(args, name) is None]
    if lacking:
        print(f"its card does not say what one may do with it; add {' and '.join(lacking)}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(lambda: run(parser().parse_args(argv)))


if __name__ == "__main__":
    sys.exit(main())
