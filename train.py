"""Trains a Tacotron 2 voice: `python train.py -o output -l logs --hparams "batch_size=32"`; see README.md."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from common.cli import Parser, int_at_least, leave, positive, run_command
from common.errors import UserError
from common.signals import end_on_signal
from hparams import HParams, resolve_hparams
from settings.presets import preset_names
from smart_tuner.settings import Layers, add_arguments, repeated_switches, search_options

if TYPE_CHECKING:  # torch is not imported for --help
    from training.options import Options

EXAMPLES = """examples:
  python train.py --preset demo -o output -l logs
  python train.py -o output -l logs --hparams "learning_rate=1e-3,batch_size=32,use_guided_attn=True"
  python train.py --preset demo -o output -l logs --optimize-hyperparams --n-trials 6 --train-best
  python train.py --show-params md
"""
BASE_STEPS = 3500  # of the voice that --from-base begins with


def parser() -> Parser:
    p = Parser(description=__doc__, epilog=EXAMPLES)
    add = p.add_argument
    add("-o", "--output-directory", type=Path, metavar="DIR", help="folder of the run: checkpoints, samples, metrics")
    add("-l", "--log-directory", type=Path, metavar="DIR", help="folder of the logs: TensorBoard files and train.log")
    add("-c", "--checkpoint-path", type=Path, metavar="PT", help="start from this checkpoint (ours or NVIDIA's)")
    add("--warm-start", action="store_true", help="with -c: load matching weights only, start at step 0")
    add("--from-base", action="store_true", help="start from a voice trained on synthetic speech, made once and cached")
    add("--base-steps", type=int_at_least(1), metavar="N", help=f"steps of that voice (default {BASE_STEPS})")
    add("--hparams", action="append", default=[], metavar="A=B,...", help="hyperparameters; see --show-params")
    add("--hparams-file", type=Path, metavar="YAML", help="a file of hyperparameters; --hparams overrides it")
    add("--preset", metavar="NAME", help=f"named hyperparameters, which files override: {', '.join(preset_names())}")
    forms = ("text", "md", "json")
    add("--show-params", nargs="?", const="text", choices=forms, help="print all hyperparameters and exit")
    add("--max-steps", type=int_at_least(1), metavar="N", help="end the run at step N, resumes included")
    add("--max-minutes", type=positive("minutes"), metavar="M", help="save and end this launch after M minutes")
    add("--fresh", action="store_true", help="start a new run; an older run in -o is moved aside")
    add("--resume-with-changes", action="store_true", help="go on although hyperparameters or data have changed")
    add("--skip-bad-data", action="store_true", help="leave out lines and recordings that can't be used, and list them")
    add("--ignore-mmi-layers", action="store_true", help="with --warm-start: do not load mmi_ignore_layers")
    add("--ignore-gst-layers", action="store_true", help="with --warm-start: do not load the style tokens")
    add("--ignore-tsgst-layers", action="store_true", help="with --warm-start: do not load the style predictor")
    add("--no-dga", action="store_true", help="switch guided attention off")
    add("--diagnose", type=Path, metavar="RUN", help="print why a run ended and exit (read-only)")
    add("--n-gpus", type=int_at_least(1), metavar="N", help="processes of the run; multiproc.py starts them")
    add("--rank", type=int_at_least(0), metavar="R", help="number of this process, from 0, if you start them yourself")
    add("--group-name", metavar="NAME", help="accepted for compatibility, has no effect")
    add_arguments(p)
    return p


def layers_of(args: argparse.Namespace) -> Layers:
    given = [*args.hparams, "no_dga=True" if args.no_dga else ""]
    return Layers(args.preset, args.hparams_file, ",".join(text.strip() for text in given if text.strip()))


def ignored_prefixes(args: argparse.Namespace, hp: HParams) -> tuple[str, ...]:
    """Beginnings of the state-dict keys that a warm start leaves out. UserError where there is no warm start."""
    prefixes = {"mmi": hp.mmi_ignore_layers, "gst": ("gst.",), "tsgst": ("tpgst.",)}
    asked = [part for part in prefixes if getattr(args, f"ignore_{part}_layers")]
    if asked and not args.warm_start:
        switches = " and ".join(f"--ignore-{part}-layers" for part in asked)
        raise UserError(f"{switches} needs --warm-start: it says which of a checkpoint's weights to leave out")
    return tuple(prefix for part in asked for prefix in prefixes[part])


def options_of(args: argparse.Namespace, prefixes: tuple[str, ...]) -> "Options":
    from training.options import Options

    return Options(
        output=args.output_directory,
        logs=args.log_directory,
        checkpoint=args.checkpoint_path,
        warm_start=args.warm_start,
        base_steps=(args.base_steps or BASE_STEPS) if args.from_base else None,
        ignore_prefixes=prefixes,
        max_steps=args.max_steps,
        max_minutes=args.max_minutes,
        fresh=args.fresh,
        resume_with_changes=args.resume_with_changes,
        skip_bad_data=args.skip_bad_data,
        n_gpus=args.n_gpus,
        rank=args.rank,
    )


def run(args: argparse.Namespace) -> int:
    if args.diagnose is not None:
        from recovery.diagnosis import diagnose, format_diagnosis

        print(format_diagnosis(diagnose(args.diagnose)))
        return 0
    layers = layers_of(args)
    settings = resolve_hparams(**vars(layers))
    if args.show_params:
        from config.show_params import show_params

        print(show_params(settings, args.show_params))
        return 0
    if args.warm_start and args.checkpoint_path is None:
        raise UserError("--warm-start needs -c CHECKPOINT: the weights to start from")
    if args.from_base and args.checkpoint_path is not None:
        raise UserError("--from-base and -c both say where to begin; give one of them")
    if args.base_steps is not None and not args.from_base:
        raise UserError("--base-steps needs --from-base: they are the steps of the voice that it begins with")
    prefixes = ignored_prefixes(args, settings.hparams)
    search = search_options(args)
    # Large buffers on huge pages: a sixth less processor time a step. PyTorch reads this at its first allocation.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    from training.session import train  # imports torch, which takes seconds

    options = options_of(args, prefixes)
    if search is None:
        return train(settings, options)
    from smart_tuner.optimization_engine import optimize

    return optimize(layers, options, search, repeated=repeated_switches(args))


def main(argv: Sequence[str] | None = None) -> int:
    with end_on_signal():
        return run_command(lambda: run(parser().parse_args(argv)))


if __name__ == "__main__":
    leave(main())
