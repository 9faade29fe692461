"""`cut`: long recordings become sentences with texts."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from common.errors import DataError, UserError
from common.files import write_atomic
from corpus.cutting import Cut, CutSettings, cut_recording, seconds_of, with_odd_rates
from corpus.list_writing import Entry, split_entries
from corpus.near_files import SOUND_EXTENSIONS
from corpus.preparation.lists_out import TRAINING, VALIDATION, refuse_existing, say_what_next, write_lists
from corpus.preparation.shell import Shell
from listeners.recogniser import Recogniser

DOUBTFUL, REASONS = "doubtful.csv", "doubtful.txt"


def run(args: argparse.Namespace, shell: Shell) -> int:
    """0, or 3 where some recordings gave nothing; DataError where all did."""
    if not 0 < args.shortest < args.longest:
        raise UserError(f"--shortest {args.shortest} must be positive and less than --longest {args.longest}")
    refuse_existing(args)
    paths = recordings(args.audio)
    _refuse_originals(args.output, paths)
    if args.dry_run:
        minutes = sum(map(seconds_of, paths)) / 60
        shell.say(f"would cut {len(paths)} recordings, {minutes:.0f} minutes, and hear them as {args.language}")
        return 0
    recogniser = Recogniser(args.language, args.model)
    recogniser.check()
    settings = CutSettings(args.longest, args.shortest)
    cuts: list[Cut] = []
    n_failed = 0
    for path in paths:
        try:
            cuts += cut_recording(path, args.output, recogniser, settings, progress=_bar(path.name, shell))
        except DataError as caught:
            n_failed += 1
            shell.say(str(caught))
    if not cuts:
        raise DataError(f"no speech was cut from {len(paths)} recordings")
    _write(args, with_odd_rates(cuts), shell)
    return DataError.exit_code if n_failed else 0


def _refuse_originals(out: Path, paths: Sequence[Path]) -> None:
    for path in paths:
        if path.resolve().is_relative_to(out.resolve()):
            raise UserError(f"-o {out}: {path} lies in it; name another folder, so that no original is written over")


def recordings(named: Sequence[Path]) -> list[Path]:
    """Files as named, and those in folders; DataError for what is not there."""
    found: list[Path] = []
    for path in named:
        if path.is_dir():
            found += [p for p in sorted(path.rglob("*")) if p.suffix.lower() in SOUND_EXTENSIONS and p.is_file()]
        elif path.is_file():
            found.append(path)
        else:
            raise DataError(f"{path} is no file or folder; correct the path")
    if not found:
        raise DataError(f"no recording in {', '.join(map(str, named))}")
    return list(dict.fromkeys(found))


def _bar(name: str, shell: Shell) -> Callable[[float, float], None]:
    bar = shell.progress(f"seconds of {name}")
    return lambda done, total: bar(min(round(done), round(total)), max(1, round(total)))


def _write(args: argparse.Namespace, cuts: Sequence[Cut], shell: Shell) -> None:
    sure = [piece for piece in cuts if not piece.doubts]
    doubtful = [piece for piece in cuts if piece.doubts]
    split = split_entries([Entry(piece.path, piece.text) for piece in sure], seed=args.seed, share=args.validation)
    doubted = [Entry(piece.path, piece.text) for piece in doubtful]
    write_lists(args, {TRAINING: split.training, VALIDATION: split.validation, DOUBTFUL: doubted}, shell)
    reasons = [f"{p.path} ({p.source} at {p.start_s:.1f} s): {'; '.join(p.doubts)}\n" for p in doubtful]
    write_atomic(args.output / REASONS, "".join(reasons))
    minutes = sum(piece.end_s - piece.start_s for piece in sure) / 60
    shell.say(f"{minutes:.1f} minutes are sure")
    if doubtful:
        shell.say(f"listen to the doubtful ones ({args.output / REASONS} says why), correct their texts, and add their "
                  f"lines to {args.output / TRAINING}")  # fmt: skip
    say_what_next(args, shell, dataset_path=args.output)
