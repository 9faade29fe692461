"""Judges a voice by what it does alone: `python evaluate.py -c output --filelist test.csv --asr`; see README.md."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.cli import Parser, int_at_least, run_command
from common.files import write_atomic
from config.hparam_switch import like_hparam

if TYPE_CHECKING:
    from speech.evaluation import Judgement


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
        help="what training never saw (default: the demo's test list)",
    )
    add("--dataset-path", type=Path, metavar="DIR", help="where its recordings lie (default: its own folder)")
    add(
        "-o",
        "--output",
        type=Path,
        default=Path("evaluation"),
        metavar="DIR",
        help="table, pictures and sounds (default evaluation)",
    )
    add("-n", type=int_at_least(1), default=100, metavar="N", help="at most the first N lines (default 100)")
    add("--seed", type=like_hparam("seed"), default=1234, help="of the first reading (default 1234)")
    add(
        "--readings",
        type=int_at_least(1),
        default=1,
        metavar="N",
        help="times each text is said, each with a new seed (default 1)",
    )
    add("--precision", choices=["fp32", "bf16", "int8", "auto"], default="fp32", help="see synthesize.py")
    vocoder = "griffin-lim (default), universal, lj, or a generator's file: see synthesize.py"
    add("--vocoder", default="griffin-lim", metavar="NAME|FILE", help=vocoder)
    add("--asr", action="store_true", help="word errors too (pip install -r requirements-eval.txt)")
    return p


def table(judgement: "Judgement") -> str:
    rows = [f"{name:16} {value:.3f}" for name, value in judgement.summary.items()]
    return "\n".join([f"{len(judgement.rows)} readings, checkpoint of step {judgement.step}", *rows])


def as_json(judgement: "Judgement") -> dict[str, Any]:
    return {"step": judgement.step, **judgement.summary, "texts": judgement.rows}


def run(args: argparse.Namespace) -> int:
    from speech.evaluation import judge, writing_to

    judgement = judge(
        args.checkpoint_path,
        filelist=args.filelist,
        dataset_path=args.dataset_path,
        output=args.output,
        n=args.n,
        seeds=range(args.seed, args.seed + args.readings),
        with_asr=args.asr,
        precision=args.precision,
        vocoder=args.vocoder,
    )
    print(table(judgement))
    with writing_to(args.output):
        write_atomic(args.output / "evaluation.json", json.dumps(as_json(judgement), indent=1) + "\n")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(lambda: run(parser().parse_args(argv)))


if __name__ == "__main__":
    sys.exit(main())
