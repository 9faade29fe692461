"""Measures how well a voice speaks: `python evaluate.py -c output --asr`; see docs/judging_a_voice.md."""

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from common.cli import Parser, device, int_at_least, run_command
from common.errors import UserError
from common.files import write_atomic
from config.hparam_switch import like_hparam

if TYPE_CHECKING:
    from evaluation.judge import Judgement, Judges

GRIFFIN_LIM = "griffin-lim"


def parser() -> Parser:
    p = Parser(description=__doc__)
    add = p.add_argument
    add(
        "-c", "--checkpoint-path", type=Path, required=True, metavar="RUN_OR_PT", help="a run directory or a checkpoint"
    )
    add(
        "--filelist",
        type=Path,
        metavar="CSV",
        help="texts and recordings that training never saw (default: the demo's test list, or the validation list)",
    )
    add("--dataset-path", type=Path, metavar="DIR", help="folder of the list's recordings (default: that of the list)")
    add(
        "--words",
        type=Path,
        metavar="CSV",
        help="the same recordings with their words, if --filelist holds {phonemes}",
    )
    add("--skip-bad-data", action="store_true", help="leave out lines that can't be used, and say so")
    add(
        "-o",
        "--output",
        type=Path,
        default=Path("evaluation_results"),
        metavar="DIR",
        help="table, page, pictures and sounds (default evaluation_results)",
    )
    add("-n", type=int_at_least(1), default=100, metavar="N", help="at most the first N lines (default 100)")
    add("--seed", type=like_hparam("seed"), default=1234, help="seed of the first reading (default 1234)")
    add(
        "--readings",
        type=int_at_least(1),
        default=1,
        metavar="N",
        help="readings of each text, each with another seed (default 1)",
    )
    _add_comparison(p)
    return p


def _add_comparison(p: Parser) -> None:
    """How the voice speaks, beside whom, and who judges."""
    add = p.add_argument
    dropout = "see synthesize.py; of all voices that are judged"
    add("--prenet-dropout", type=like_hparam("dropout_rate"), metavar="P", help=dropout)
    add("--precision", choices=["fp32", "bf16", "int8", "auto"], default="fp32", help="see synthesize.py")
    add("--device", type=device, default="auto", metavar="NAME", help="see synthesize.py")
    add(
        "--vocoder",
        action="append",
        metavar="NAME_OR_PT",
        help="griffin-lim (default), universal, lj, or a generator's file; give several to compare them",
    )
    add(
        "--enhanced",
        action="store_true",
        help="judge the sound as synthesize.py makes it: sharpened, with less noise, of one loudness (default: as the "
        "network and the vocoder leave it)",
    )
    add(
        "--against",
        type=Path,
        action="append",
        default=[],
        metavar="RUN_OR_PT",
        help="another voice that says the same; may be given several times",
    )
    add("--asr", action="store_true", help="also word errors, by a recognizer (pip install -r requirements-eval.txt)")
    add("--asr-model", type=Path, metavar="DIR", help="folder of another recognizer, in the format of faster-whisper")
    add(
        "--full",
        action="store_true",
        help="--asr and all other measures that are installed: sound quality, speaker similarity, pitch, speaking rate",
    )
    add("--blind", action="store_true", help="also blind_test.html, where people vote without knowing who speaks")


def judges_of(args: argparse.Namespace) -> "Judges":
    from evaluation.judge import Judges

    return Judges(
        words=args.asr or args.full or args.asr_model is not None,
        recogniser_folder=args.asr_model,
        quality=args.full,
        likeness=args.full,
        prosody=args.full,
    )


def write(judgement: "Judgement", output: Path, *, is_blind: bool) -> list[Path]:
    """Data, page and, if asked for, the blind test. -> where the pages are"""
    from evaluation.blind_test import write_blind_test
    from evaluation.judge import writing_to
    from evaluation.page import write_page
    from evaluation.table import as_json

    with writing_to(output):
        write_atomic(output / "evaluation.json", json.dumps(as_json(judgement), indent=1, ensure_ascii=False) + "\n")
        pages = [write_page(judgement, output)]
        return [*pages, write_blind_test(judgement, output)] if is_blind else pages


def run(args: argparse.Namespace) -> int:
    if args.words is not None and not judges_of(args).words:
        raise UserError("--words needs --asr or --full: only a recognizer is compared with them")
    from evaluation.judge import judge
    from evaluation.table import as_text
    from speech.voice import Speaker

    judgement = judge(
        args.checkpoint_path,
        filelist=args.filelist,
        dataset_path=args.dataset_path,
        output=args.output,
        n=args.n,
        seeds=range(args.seed, args.seed + args.readings),
        judges=judges_of(args),
        load=partial(Speaker.load, precision=args.precision, prenet_dropout=args.prenet_dropout, device=args.device),
        against=args.against,
        vocoders=list(dict.fromkeys(args.vocoder or [GRIFFIN_LIM])),
        words=args.words,
        skip_bad=args.skip_bad_data,
        is_enhanced=args.enhanced,
    )
    print(as_text(judgement))
    for page in write(judgement, args.output, is_blind=args.blind):
        print(f"listen: {page}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(lambda: run(parser().parse_args(argv)))


if __name__ == "__main__":
    sys.exit(main())
