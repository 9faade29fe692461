"""`record-next` and `stats`: what a corpus holds, and what it lacks."""

import argparse

from common.encodings import NotText
from common.errors import DataError, UserError
from common.files import read_given_text, write_atomic
from corpus.coverage import coverage_of, suggest
from corpus.list_checks import Places, check_list
from corpus.near_files import SOUND_EXTENSIONS
from corpus.preparation.check import (
    dataset_path,
    examination_of,
    say_little_speech,
    say_where_recordings_are,
    write_json,
)
from corpus.preparation.shell import Shell
from corpus.record_sheet import gaps, sentences_of, sheet_html, sheet_text
from corpus.recording_checks import Wanted
from corpus.statistics import statistics


def record_next(args: argparse.Namespace, shell: Shell) -> int:
    """0; UserError where there is nothing to go by, DataError where the pool adds nothing."""
    if not args.lists and args.pool is None:
        raise UserError("record-next needs a FILELIST of what is recorded, a --pool of sentences, or both")
    texts = _texts(args, shell)
    have = coverage_of(texts)
    for line in gaps(have) if texts else []:
        shell.say(line)
    if args.pool is None:
        shell.say("to choose sentences that fill the gaps, give a text in this language: --pool book.txt")
        return 0
    pool = _pool(args)
    chosen = suggest(have, pool, args.n, known=texts)
    if not chosen:
        raise DataError(f"{args.pool}: none of its {len(pool)} sentences of 3 to 20 words adds anything")
    after = coverage_of([*texts, *(suggestion.text for suggestion in chosen)])
    for kind, name in (("symbol", "symbols"), ("pair", "pairs")):
        shell.say(f"{name}: {len(have.of(kind))} now, {len(after.of(kind))} with these {len(chosen)} sentences")
    if args.output is None:
        shell.say(sheet_text(chosen).rstrip("\n"))
        return 0
    is_page = args.output.suffix.lower() in (".html", ".htm")
    title = f"{len(chosen)} sentences to record"
    write_atomic(args.output, sheet_html(chosen, title=title) if is_page else sheet_text(chosen))
    shell.written(args.output)
    return 0


def _texts(args: argparse.Namespace, shell: Shell) -> list[str]:
    texts: list[str] = []
    for path in args.lists:
        checked = check_list(path, Places.of(path, dataset_path=dataset_path(args), data_roots=args.data_root))
        n_errors = sum(finding.severity == "error" for finding in checked.findings)
        if n_errors:
            shell.say(f"{path}: {n_errors} lines are left out; `python prepare_data.py check {path}` names them")
        texts += [line.text for line in checked.lines]
    return texts


def _pool(args: argparse.Namespace) -> list[str]:
    try:
        return sentences_of(read_given_text(args.pool))
    except NotText as caught:
        is_sound = args.pool.suffix.lower() in SOUND_EXTENSIONS
        raise DataError(f"{args.pool} {'is a recording; name a text' if is_sound else caught}") from caught
    except OSError as caught:
        raise DataError(f"{args.pool} can't be read ({caught.strerror}); correct the path") from caught


def stats(args: argparse.Namespace, shell: Shell) -> int:
    """0; 3 where no line is usable."""
    examination = examination_of(args, shell, Wanted())
    if not examination.usable:
        shell.findings(examination.findings)
        say_where_recordings_are(examination, shell)
        return DataError.exit_code
    numbers = statistics(examination)
    for name, value in numbers.items():
        shell.say(f"{name}: {value}")
    say_little_speech(examination, shell)
    for line in gaps(coverage_of(examined.line.text for examined in examination.usable)):
        shell.say(line)
    if args.json is not None:
        write_json(args.json, numbers, shell)
    return 0
