"""Writes report.html of a run: `python -m monitoring.report output`. Training does so itself, once a minute."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from common.errors import UserError


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    p.add_argument("run", type=Path, metavar="RUN", help="the -o of a training, be it running, ended or killed")
    p.add_argument("--language", choices=("auto", "en", "ru"), default="auto", help="auto follows the locale")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    from common.files import explain_write_errors
    from common.translations import language_of
    from monitoring.report.page import write_report

    language = language_of(os.environ) if args.language == "auto" else args.language
    try:
        with explain_write_errors(
            str(args.run / "report.html"), next_step="free space there, or copy the run elsewhere"
        ):
            print(write_report(args.run, language))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
