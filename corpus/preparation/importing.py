"""`import`: a folder as published becomes our lists."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from common.errors import DataError, format_problems
from common.files import write_atomic
from corpus.findings import Finding, counts_by_kind
from corpus.fixing import LEFT_OUT
from corpus.importers.recognise import read_folder
from corpus.list_writing import Entry, split_entries
from corpus.preparation.lists_out import (
    TRAINING,
    VALIDATION,
    refuse_existing,
    say_foreign_script,
    say_what_next,
    write_lists,
)
from corpus.preparation.shell import SHOWN, Shell


def _below(path: Path, folder: Path) -> str:
    """A path as it will stand in a list whose dataset folder is `folder`."""
    inside = path if path.is_relative_to(folder) else path.resolve()
    return inside.relative_to(folder if inside is path else folder.resolve()).as_posix()


def _refuse_wrong_columns(findings: Sequence[Finding]) -> None:
    """DataError: of such lines nobody knows what is their text, so they are not left out unasked."""
    wrong = [finding.message for finding in findings if finding.kind == "columns"]
    if wrong:
        headline = "lines that are not as their list is; correct them, or leave them out by --skip-bad-data:"
        raise DataError(format_problems(wrong, headline=headline))


def run(args: argparse.Namespace, shell: Shell) -> int:
    """0; DataError where nothing is recognised or usable, or lines have other columns than their list."""
    refuse_existing(args)
    found = read_folder(args.folder, layout=args.layout)
    shell.say(f"taken for {found.layout}: {found.why}")
    if not args.skip_bad_data:
        _refuse_wrong_columns(found.findings)
    if found.findings:
        shell.say(f"{len(found.findings)} can't be used: {counts_by_kind(found.findings)}")
        for finding in found.findings[:SHOWN]:
            shell.say(f"  {finding.message}")
        if len(found.findings) > SHOWN:
            shell.say(f"  ... and {len(found.findings) - SHOWN} more")
    if not found.items:
        raise DataError(f"{args.folder}: nothing in it is usable; see the lines above")
    entries = [Entry(_below(item.audio_path, args.folder), item.text, item.speaker) for item in found.items]
    split = split_entries(entries, seed=args.seed, share=args.validation)
    if split.has_speakers:
        shell.say(f"{len({entry.speaker for entry in entries})} speakers")
    lists = {TRAINING: split.training, VALIDATION: split.validation}
    write_lists(args, lists, shell, has_speakers=split.has_speakers)
    if found.findings and not args.dry_run:
        write_atomic(args.output / LEFT_OUT, "".join(f"{finding.message}\n" for finding in found.findings))
        shell.say(f"what was left out, and why: {args.output / LEFT_OUT}")
    say_foreign_script((item.text for item in found.items), "en", shell)
    say_what_next(args, shell, dataset_path=args.folder)
    return 0
