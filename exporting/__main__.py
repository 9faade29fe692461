"""Mels and recordings for training HiFi-GAN elsewhere: `python -m exporting -c output -o hifigan_data`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from common.cli import Parser, run_command
from common.files import explain_write_errors
from config.hparam_switch import like_hparam

EXAMPLES = """examples:
  python -m exporting -c output -o hifigan_data
      the mels that the voice predicts for each recording (teacher-forced), to fine-tune a vocoder on
  python -m exporting -c output -o hifigan_data --recorded
      mels of the recordings
"""


def parser() -> Parser:
    p = Parser(prog="python -m exporting", description=__doc__, epilog=EXAMPLES)
    add = p.add_argument
    add("-c", "--checkpoint-path", required=True, type=Path, metavar="VOICE", help="a run directory or a checkpoint")
    add("-o", "--output", required=True, type=Path, metavar="DIR", help="folder for wavs, mels and lists")
    add("--recorded", action="store_true", help="write the mels of the recordings, not those that the voice predicts")
    add("--training-files", type=Path, metavar="CSV", help="default: the voice's own list")
    add("--validation-files", type=Path, metavar="CSV", help="default: the voice's own list")
    add("--dataset-path", type=Path, metavar="DIR", help="folder of the recordings (default: the voice's own)")
    add("--skip-bad-data", action="store_true", help="leave out lines and recordings that can't be used, and say so")
    add("--seed", type=like_hparam("seed"), default=1234, help="seed of the prenet's dropout (default 1234)")
    return p


def run(args: argparse.Namespace) -> int:
    from exporting.vocoder_data import export_vocoder_data
    from speech.voice import Voice

    voice = Voice.load(args.checkpoint_path, device="cpu")
    with explain_write_errors(f"-o {args.output}", next_step="free space there, or name another place"):
        written = export_vocoder_data(
            voice,
            args.output,
            training_files=args.training_files,
            validation_files=args.validation_files,
            dataset_path=args.dataset_path,
            is_recorded=args.recorded,
            seed=args.seed,
            skip_bad=args.skip_bad_data,
        )
    print(f"{args.output}: {written.n_training} clips to train, {written.n_validation} to validate")
    if written.too_short:
        print(f"left out, as HiFi-GAN can't cut a segment from them: {', '.join(written.too_short)}")
    print(f"in a checkout of HiFi-GAN: {written.command}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(lambda: run(parser().parse_args(argv)))


if __name__ == "__main__":
    sys.exit(main())
