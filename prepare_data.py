"""From recordings to lists that train: check, import, cut, record-next, stats. The originals are never touched."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from common.cli import Parser, Verb, int_at_least, positive, run_command
from common.errors import UserError
from config.hparam_switch import like_hparam

if TYPE_CHECKING:
    from corpus.preparation.shell import Shell

REPORT = Path("corpus_report.html")

CHECK = """examples:
  python prepare_data.py check data/dataset/train.csv data/dataset/val.csv
      every line and recording; the first list trains, the others validate; writes corpus_report.html
  python prepare_data.py check train.csv --dataset-path ~/recordings --json findings.json
  python prepare_data.py check train.csv --listen --language ru
      hears each clip, too: wrong texts, other speakers, poor sound (a few minutes for an hour)
  python prepare_data.py check train.csv val.csv --fix cleaned
      a corrected copy: lists, and recordings trimmed, levelled, of one channel and rate
  python prepare_data.py check train.csv val.csv --listen --fix cleaned --leave-out "heard otherwise,speech rate"
      the same without the lines whose text is probably another's"""
IMPORT = """examples:
  python prepare_data.py import ~/LJSpeech-1.1 -o data/ljspeech
      recognises LJSpeech, VCTK, M-AILABS, Common Voice, Kaldi, lists of Piper, Coqui, VITS, csv, JSON, and
      recordings with a text file beside each; writes train.csv and val.csv
  python prepare_data.py import ~/recordings -o data/mine --as pairs --validation 0.1 --seed 7
  python prepare_data.py import ~/recordings -o data/mine --dry-run"""
CUT = """examples:
  python prepare_data.py cut lecture.mp3 interview.m4a -o data/mine
      sentences with their recognised texts; what it is unsure of goes to doubtful.csv, to be heard by a person
  python prepare_data.py cut ~/lectures -o data/mine --language ru --model ~/models/whisper-large-v3
      a model folder that faster-whisper reads hears better than the small one that a package brings
  python prepare_data.py cut ~/lectures -o data/mine --dry-run"""
NEXT = """examples:
  python prepare_data.py record-next data/mine/train.csv
      which symbols and pairs of symbols are rare
  python prepare_data.py record-next data/mine/train.csv --pool book.txt -n 50 -o sheet.html
      the 50 sentences of a text that add most, as a page to print (.txt: a plain list)
  python prepare_data.py record-next --pool book.txt -n 300 -o sheet.html
      the same before anything is recorded"""
STATS = """examples:
  python prepare_data.py stats data/mine/train.csv data/mine/val.csv
  python prepare_data.py stats data/mine/train.csv --json stats.json"""


# ---- the command line


def parser() -> Parser:
    p = Parser(description=__doc__)
    verbs = p.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=Verb)
    _add_check(_verb(verbs, "check", "what is wrong with lists and recordings, and what to do", CHECK, check))
    _add_import(_verb(verbs, "import", "a folder as published becomes our lists", IMPORT, import_folder))
    _add_cut(_verb(verbs, "cut", "long recordings become sentences with texts", CUT, cut))
    _add_next(_verb(verbs, "record-next", "which sentences to record", NEXT, record_next))
    _add_stats(_verb(verbs, "stats", "hours, speakers, lengths, coverage", STATS, stats))
    return p


def _verb(
    verbs: "argparse._SubParsersAction[Verb]",
    name: str,
    summary: str,
    examples: str,
    run: Callable[[argparse.Namespace, "Shell"], int],
) -> Parser:
    verb = verbs.add_parser(name, help=summary, description=summary, epilog=examples)
    verb.set_defaults(run=run)
    return verb


def _add_lists(p: Parser, *, nargs: str = "+") -> None:
    p.add_argument("lists", type=Path, nargs=nargs, metavar="FILELIST", help="wav|text or wav|text|speaker")
    p.add_argument("--dataset-path", type=Path, metavar="FOLDER", help="what the paths start from (default: beside)")
    p.add_argument("--data-root", type=Path, action="append", default=[], metavar="FOLDER", help="trusted as well")


def _add_check(p: Parser) -> None:
    _add_lists(p)
    add = p.add_argument
    add("--sampling-rate", type=int_at_least(1), default=22050, metavar="HZ", help="of training (default 22050)")
    add("--mel-fmax", type=positive("Hz"), default=8000.0, metavar="HZ", help="of training (default 8000)")
    p.add_argument(
        "--text-cleaners", default="", metavar="NAMES", help="of training, with commas (default: the language's own)"
    )
    p.add_argument("--report", type=Path, default=REPORT, metavar="HTML", help=f"the page (default {REPORT})")
    p.add_argument("--json", type=Path, metavar="FILE", help="everything that was found and measured (-: the console)")
    p.add_argument("--fix", type=Path, metavar="OUT", help="write a corrected copy into this folder")
    p.add_argument(
        "--leave-out", default="", metavar="KINDS", help="with --fix: lines with these findings, with commas"
    )
    p.add_argument("--dry-run", action="store_true", help="with --fix: say what would be corrected, write nothing")
    p.add_argument("--listen", action="store_true", help="hear every clip: words, speaker, quality")
    _add_hearing(p)


def _add_hearing(p: Parser) -> None:
    p.add_argument("--language", default="en", metavar="XX", help="two letters: what is spoken (default en)")
    p.add_argument("--model", type=Path, metavar="FOLDER", help="a model that faster-whisper reads")


def _add_import(p: Parser) -> None:
    p.add_argument("folder", type=Path, metavar="FOLDER", help="with recordings and texts, in any known layout")
    p.add_argument("--as", dest="layout", metavar="LAYOUT", help="ask one reader only, such as vctk or pairs")
    p.add_argument("--skip-bad-data", action="store_true", help="leave out lines with other columns, and say so")
    _add_output(p)


def _add_output(p: Parser) -> None:
    p.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="folder for what is written")
    p.add_argument("--validation", type=share, default=0.05, metavar="SHARE", help="of the lines (default 0.05)")
    p.add_argument("--seed", type=like_hparam("seed"), default=1234, help="of the split (default 1234)")
    p.add_argument("--overwrite", action="store_true", help="replace lists that are already in OUT")
    p.add_argument("--dry-run", action="store_true", help="say what would be done, write nothing")


def _add_cut(p: Parser) -> None:
    p.add_argument("audio", type=Path, nargs="+", metavar="AUDIO", help="recordings, or folders of them")
    seconds = positive("seconds")
    p.add_argument("--longest", type=seconds, default=12.0, metavar="S", help="of a piece, seconds (default 12)")
    p.add_argument("--shortest", type=seconds, default=1.0, metavar="S", help="of a piece, seconds (default 1)")
    _add_hearing(p)
    _add_output(p)


def _add_next(p: Parser) -> None:
    _add_lists(p, nargs="*")
    p.add_argument("--pool", type=Path, metavar="TEXT", help="sentences to choose from: a text in UTF-8")
    p.add_argument("-n", type=int_at_least(1), default=50, metavar="N", help="how many sentences (default 50)")
    p.add_argument(
        "-o", "--output", type=Path, metavar="SHEET", help="where to: .html to print, .txt (default: console)"
    )


def _add_stats(p: Parser) -> None:
    _add_lists(p)
    p.add_argument("--json", type=Path, metavar="FILE", help="the numbers (-: the console)")


def share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a share between 0 and 1")
    return value


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    return run_command(lambda: _run(args))


def _run(args: argparse.Namespace) -> int:
    try:
        return int(args.run(args, _shell()))
    except OSError as caught:
        raise UserError(f"{caught.filename or 'a file'} can't be written or read ({caught.strerror})") from caught


def _shell() -> "Shell":
    from corpus.preparation.shell import Shell
    from monitoring.logging_setup import configure_logging
    from monitoring.progress_bar import counted_progress

    configure_logging()
    return Shell(say=lambda line: print(line, flush=True), progress=counted_progress)


def refuse_useless(args: argparse.Namespace) -> None:
    """UserError for switches of `check` that nothing would heed."""
    needed = {
        "--leave-out": ("--fix", bool(args.leave_out) and args.fix is None),
        "--dry-run": ("--fix", args.dry_run and args.fix is None),
        "--model": ("--listen", args.model is not None and not args.listen),
    }
    useless = [f"{switch} needs {other}" for switch, (other, is_useless) in needed.items() if is_useless]
    if useless:
        raise UserError("; ".join(useless))


# ---- the verbs; what they need takes seconds to import


def check(args: argparse.Namespace, shell: "Shell") -> int:
    refuse_useless(args)
    from corpus.preparation.check import run

    return run(args, shell)


def import_folder(args: argparse.Namespace, shell: "Shell") -> int:
    from corpus.preparation.importing import run

    return run(args, shell)


def cut(args: argparse.Namespace, shell: "Shell") -> int:
    from corpus.preparation.cut import run

    return run(args, shell)


def record_next(args: argparse.Namespace, shell: "Shell") -> int:
    from corpus.preparation.recording_plan import record_next as run

    return run(args, shell)


def stats(args: argparse.Namespace, shell: "Shell") -> int:
    from corpus.preparation.recording_plan import stats as run

    return run(args, shell)


if __name__ == "__main__":
    sys.exit(main())
