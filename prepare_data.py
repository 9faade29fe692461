"""Prepares recordings for training: check, import, cut, record-next, stats. The originals are never changed."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from common.cli import Parser, Verb, int_at_least, is_output_refused, positive, run_command
from common.errors import UserError
from common.files import check_place, why_refused
from config.hparam_switch import like_hparam

if TYPE_CHECKING:
    from corpus.preparation.shell import Shell

REPORT = Path("corpus_report.html")

CHECK = """examples:
  python prepare_data.py check data/dataset/train.csv data/dataset/val.csv
      checks every line and recording, writes corpus_report.html; the first list is for training, others for validation
  python prepare_data.py check train.csv --dataset-path ~/recordings --json findings.json
  python prepare_data.py check train.csv --listen --language ru
      also listens to each clip: wrong texts, other speakers, poor sound (takes half as long as the recordings)
  python prepare_data.py check train.csv val.csv --fix cleaned
      writes a corrected copy: lists, and recordings that are trimmed, mono, of one level and rate
  python prepare_data.py check train.csv val.csv --listen --fix cleaned --leave-out "heard otherwise,speech rate"
      the same, without lines whose text is probably wrong"""
IMPORT = """examples:
  python prepare_data.py import ~/LJSpeech-1.1 -o data/ljspeech
      recognizes LJSpeech, VCTK, M-AILABS, Common Voice, Kaldi, lists of Piper, Coqui, VITS, csv, JSON, and
      recordings with a text file beside each; writes train.csv and val.csv
  python prepare_data.py import ~/recordings -o data/mine --as pairs --validation 0.1 --seed 7
  python prepare_data.py import ~/recordings -o data/mine --dry-run"""
CUT = """examples:
  python prepare_data.py cut lecture.mp3 interview.m4a -o data/mine
      sentences with recognized texts; uncertain ones go to doubtful.csv, for you to listen to
  python prepare_data.py cut ~/lectures -o data/mine --language ru --model ~/models/whisper-large-v3
      a larger model (a folder in the format of faster-whisper) makes fewer mistakes than the built-in small one
  python prepare_data.py cut ~/lectures -o data/mine --dry-run"""
NEXT = """examples:
  python prepare_data.py record-next data/mine/train.csv
      which symbols and pairs of symbols are rare
  python prepare_data.py record-next data/mine/train.csv --pool book.txt -n 50 -o sheet.html
      the 50 sentences of a text that add the most new pairs, as a page to print (.txt: a plain list)
  python prepare_data.py record-next --pool book.txt -n 300 -o sheet.html
      the same before anything is recorded"""
STATS = """examples:
  python prepare_data.py stats data/mine/train.csv data/mine/val.csv
  python prepare_data.py stats data/mine/train.csv --json stats.json"""


# ---- the command line


def parser() -> Parser:
    p = Parser(description=__doc__)
    verbs = p.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=Verb)
    _add_check(_verb(verbs, "check", "find what is wrong with lists and recordings", CHECK, check))
    _add_import(_verb(verbs, "import", "turn a published corpus into lists for training", IMPORT, import_folder))
    _add_cut(_verb(verbs, "cut", "cut long recordings into sentences with texts", CUT, cut))
    _add_next(_verb(verbs, "record-next", "choose the sentences to record next", NEXT, record_next))
    _add_stats(_verb(verbs, "stats", "count hours, speakers, lengths and symbols", STATS, stats))
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
    start = "folder that paths start from (default: that of the list)"
    p.add_argument("--dataset-path", type=Path, metavar="FOLDER", help=start)
    root = "another folder that paths may lead into; may be repeated"
    p.add_argument("--data-root", type=Path, action="append", default=[], metavar="FOLDER", help=root)


def _add_check(p: Parser) -> None:
    _add_lists(p)
    add, rate, hz = p.add_argument, "rate of training (default 22050)", positive("Hz")
    add("--sampling-rate", type=int_at_least(1), default=22050, metavar="HZ", help=rate)
    add("--mel-fmax", type=hz, default=8000.0, metavar="HZ", help="mel_fmax of training (default 8000)")
    cleaners = "cleaners of training, separated by commas (default: the language's)"
    add("--text-cleaners", default="", metavar="NAMES", help=cleaners)
    add("--report", type=Path, default=REPORT, metavar="HTML", help=f"page to write (default {REPORT})")
    add("--json", type=Path, metavar="FILE", help="write all findings as JSON (-: to the console)")
    add("--fix", type=Path, metavar="OUT", help="write a corrected copy to this folder")
    kinds = "with --fix: leave out lines with these findings, separated by commas"
    add("--leave-out", default="", metavar="KINDS", help=kinds)
    add("--dry-run", action="store_true", help="with --fix: print what would be corrected, write nothing")
    add("--listen", action="store_true", help="listen to every clip: words, speaker, sound quality")
    _add_hearing(p)


def _add_hearing(p: Parser) -> None:
    p.add_argument("--language", default="en", metavar="XX", help="language of the recordings, such as ru (default en)")
    p.add_argument("--model", type=Path, metavar="FOLDER", help="another recognizer, in the format of faster-whisper")


def _add_import(p: Parser) -> None:
    p.add_argument("folder", type=Path, metavar="FOLDER", help="recordings and texts, in any of the known layouts")
    p.add_argument("--as", dest="layout", metavar="LAYOUT", help="read it as this layout, such as vctk or pairs")
    p.add_argument("--skip-bad-data", action="store_true", help="leave out lines with other columns, and say so")
    _add_output(p)


def _add_output(p: Parser) -> None:
    p.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="folder to write to")
    of_lines = "share of the lines for validation (default 0.05)"
    p.add_argument("--validation", type=share, default=0.05, metavar="SHARE", help=of_lines)
    p.add_argument("--seed", type=like_hparam("seed"), default=1234, help="seed of the split (default 1234)")
    p.add_argument("--overwrite", action="store_true", help="replace lists that are already in OUT")
    p.add_argument("--dry-run", action="store_true", help="print what would be done, write nothing")


def _add_cut(p: Parser) -> None:
    p.add_argument("audio", type=Path, nargs="+", metavar="AUDIO", help="recordings, or folders of them")
    seconds = positive("seconds")
    p.add_argument("--longest", type=seconds, default=12.0, metavar="S", help="longest piece in seconds (default 12)")
    p.add_argument("--shortest", type=seconds, default=1.0, metavar="S", help="shortest piece in seconds (default 1)")
    _add_hearing(p)
    _add_output(p)


def _add_next(p: Parser) -> None:
    _add_lists(p, nargs="*")
    p.add_argument("--pool", type=Path, metavar="TEXT", help="text to choose sentences from, in UTF-8")
    p.add_argument("-n", type=int_at_least(1), default=50, metavar="N", help="number of sentences (default 50)")
    p.add_argument(
        "-o", "--output", type=Path, metavar="SHEET", help="file to write: .html to print, or .txt (default: console)"
    )


def _add_stats(p: Parser) -> None:
    _add_lists(p)
    p.add_argument("--json", type=Path, metavar="FILE", help="write the numbers as JSON (-: to the console)")


def share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a share between 0 and 1")
    return value


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(lambda: _run(parser().parse_args(argv)))


def _run(args: argparse.Namespace) -> int:
    try:
        check_outputs(args)
        return int(args.run(args, _shell()))
    except OSError as caught:
        if is_output_refused(caught):
            raise
        raise UserError(f"{caught.filename or 'a file'} can't be written or read ({why_refused(caught)})") from caught


def check_outputs(args: argparse.Namespace) -> None:
    """Before work that takes minutes: UserError for a file that is read and would be written over; OSError."""
    given = vars(args)
    inputs = {path.resolve() for path in (*given.get("lists", ()), given.get("pool")) if path is not None}
    names = ("report", "json", *(("output",) if args.verb == "record-next" else ()))
    for name, path in ((name, given[name]) for name in names if given.get(name) is not None):
        if str(path) == "-":
            continue
        if path.resolve() in inputs:
            raise UserError(f"{'-o' if name == 'output' else f'--{name}'} {path}: that is what is read; name another")
        check_place(path)


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
