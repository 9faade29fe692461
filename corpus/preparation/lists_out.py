"""What `import` and `cut` have in common: lists of a split, and the commands that come next."""

import argparse
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import yaml

from common.errors import UserError
from common.files import write_atomic
from corpus.list_writing import Entry, write_list
from corpus.preparation.shell import Shell
from text.inspection import foreign_script
from text.languages import languages, languages_written_in

TRAINING, VALIDATION = "train.csv", "val.csv"
SETTINGS = "hparams.yaml"


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


def say_foreign_script(texts: Iterable[str], code: str, shell: Shell) -> None:
    """Where most letters are of a script that the language has not: how to name the right one."""
    if script := foreign_script(texts, languages()[code]):
        others = languages_written_in(script) or ["XX"]
        also = f" (or {', '.join(others[1:])})" if others[1:] else ""
        shell.say(
            f"most letters are {script}, and the language is {code}: "
            f"check with --language {others[0]}{also}, train with language={others[0]}"
        )


def say_what_next(args: argparse.Namespace, shell: Shell, *, dataset_path: Path) -> None:
    """The commands that check and train what was written."""
    lists = [args.output / TRAINING, args.output / VALIDATION]
    language = getattr(args, "language", "en")  # `import` is told none
    check = ["python", "prepare_data.py", "check", *map(str, lists), "--dataset-path", str(dataset_path)]
    check += ["--language", language] if language != "en" else []
    shell.say(f"check with: {shlex.join(check)}")
    say_how_to_train(
        args.output, lists, shell, dataset_path=dataset_path, language=language, is_dry_run=args.dry_run
    )


def say_how_to_train(
    folder: Path,
    lists: Sequence[Path],
    shell: Shell,
    *,
    dataset_path: Path,
    language: str = "en",
    is_dry_run: bool = False,
) -> None:
    """The command; where the data lies is in a file, as a path may hold what --hparams separates settings with."""
    names = ("training_files", "validation_files")
    where = {"dataset_path": dataset_path, **dict(zip(names, lists, strict=False))}
    settings = folder / SETTINGS
    if not is_dry_run:
        written = {name: str(path.absolute()) for name, path in where.items()}
        written |= {"language": language} if language != "en" else {}
        write_atomic(settings, yaml.safe_dump(written, sort_keys=False, allow_unicode=True))
    file = shlex.quote(str(settings))
    shell.say(f"train with: python train.py -o my_voice -l my_logs --preset small --hparams-file {file}")
