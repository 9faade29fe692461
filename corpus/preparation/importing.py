"""`import`: a folder as published becomes our lists."""

import argparse
from pathlib import Path

from common.errors import DataError
from corpus.findings import counts_by_kind
from corpus.importers.recognise import read_folder
from corpus.list_writing import Entry, split_entries
from corpus.preparation.lists_out import TRAINING, VALIDATION, refuse_existing, say_what_next, write_lists
from corpus.preparation.shell import SHOWN, Shell


def _below(path: Path, folder: Path) -> str:
    """A path as it will stand in a list whose dataset folder is `folder`."""
    inside = path if path.is_relative_to(folder) else path.resolve()
    return inside.relative_to(folder if inside is path else folder.resolve()).as_posix()


def run(args: argparse.Namespace, shell: Shell) -> int:
    """0; DataError where nothing is recognised or usable."""
    refuse_existing(args)
    found = read_folder(args.folder, layout=args.layout)
    shell.say(f"taken for {found.layout}: {found.why}")
    if found.findings:
        shell.say(f"{len(found.findings)} can't be used: {counts_by_kind(found.findings)}")
        for finding in found.findings[:SHOWN]:
            shell.say(f"  {finding.message}")
    if not found.items:
        raise DataError(f"{args.folder}: nothing in it is usable; see the lines above")
    entries = [Entry(_below(item.audio_path, args.folder), item.text, item.speaker) for item in found.items]
    split = split_entries(entries, seed=args.seed, share=args.validation)
    if split.has_speakers:
        shell.say(f"{len({entry.speaker for entry in entries})} speakers")
    lists = {TRAINING: split.training, VALIDATION: split.validation}
    write_lists(args, lists, shell, has_speakers=split.has_speakers)
    say_what_next(args, shell, dataset_path=args.folder)
    return 0
