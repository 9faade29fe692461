"""Writes report.html of a run: `python -m monitoring.report output`. Training does so itself, once a minute."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from common.cli import Parser, run_command


def parser() -> Parser:
    p = Parser(description=__doc__)
    p.add_argument("run", type=Path, metavar="RUN", help="the run directory (-o of train.py), running or ended")
    p.add_argument("--language", choices=("auto", "en", "ru"), default="auto", help="auto follows the locale")
    return p


def run(args: argparse.Namespace) -> int:
    from common.files import explain_write_errors
    from common.translations import language_of
    from monitoring.report.page import write_report

    language = language_of(os.environ) if args.language == "auto" else args.language
    page = str(args.run / "report.html")
    with explain_write_errors(page, next_step="free space there, or copy the run elsewhere"):
        print(write_report(args.run, language))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(lambda: run(parser().parse_args(argv)))


if __name__ == "__main__":
    sys.exit(main())
