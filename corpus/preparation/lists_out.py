"""What `import` and `cut` have in common: lists of a split, and the commands that come next."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from common.errors import UserError
from corpus.list_writing import Entry, write_list
from corpus.preparation.shell import Shell

TRAINING, VALIDATION = "train.csv", "val.csv"


def refuse_existing(args: argparse.Namespace) -> None:
    """UserError where lists would be lost that somebody may have worked on."""
    there = [args.output / name for name in (TRAINING, VALIDATION) if (args.output / name).exists()]
    if there and not args.overwrite and not args.dry_run:
        raise UserError(f"{there[0]} is already there; name another -o, or pass --overwrite")


def write_lists(
    args: argparse.Namespace, lists: Mapping[str, Sequence[Entry]], shell: Shell, *, has_speakers: bool = False
) -> None:
    """Each list by its name; in a dry run only said."""
    for name, entries in lists.items():
        if not args.dry_run:
            write_list(args.output / name, entries, has_speakers=has_speakers)
        shell.say(f"{'would write' if args.dry_run else 'wrote'} {args.output / name}: {len(entries)} lines")


def say_what_next(args: argparse.Namespace, shell: Shell, *, dataset_path: Path) -> None:
    """The commands that check and train what was written."""
    train, validation = args.output / TRAINING, args.output / VALIDATION
    shell.say(f"check with: python prepare_data.py check {train} {validation} --dataset-path {dataset_path}")
    lists = f"training_files={train},validation_files={validation}"
    shell.say(f'train with: python train.py --hparams "dataset_path={dataset_path},{lists}"')
