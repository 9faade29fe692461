"""Puts a run together: directory, corpus, model, what a checkpoint brings, who watches; then trains it."""

import shlex
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import Any

import torch

from checkpointing import directory as checkpoint_dir
from common.errors import GaveUp
from common.files import refusals_explained
from common.log import LOG
from common.threads import keep_for_this_thread
from data_utils import Corpus
from hparams import HParams, Resolved
from model import Tacotron2
from monitoring.logging_setup import configure_logging
from monitoring.observer import RunInfo, close_all
from monitoring.setup import observers
from parallel.process_group import ALONE, Group, joined, place_of
from run_directory.metrics_log import RunLog
from run_directory.paths import DEMO, MAKE_ROOM, RunPaths, alone_in, run_paths
from run_directory.records import Event
from run_directory.run_info import without_password
from training.base_voice import base_voice
from training.corpus_setup import check_same_data, read_corpus, with_demo_files
from training.listening import listening_of
from training.options import Options
from training.resume import is_demo_wanted, is_fresh_start, kept_front_end, open_run, set_aside
from training.trainer import Limits, Outcome, Trainer

WAYS_ON = "end it first (Ctrl-C or SIGTERM saves), or give another -o"


def train(settings: Resolved, options: Options) -> int:
    """One launch of a run, or one process's share of it, from the first look at its directory to the exit code."""
    hp = settings.hparams
    configure_logging()
    keep_for_this_thread()
    with joined(place_of(hp, rank=options.rank, n_gpus=options.n_gpus), hp) as group, ExitStack() as alone:
        paths = run_paths(options.output, options.logs, hp)
        group.from_first(lambda: alone.enter_context(alone_in(paths.directory, ways_on=WAYS_ON)))
        return train_in(group, paths, settings, options)


def train_in(group: Group, paths: RunPaths, settings: Resolved, options: Options) -> int:
    hp = settings.hparams
    torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark = hp.cudnn_enabled, hp.cudnn_benchmark
    is_fresh, is_demo = group.from_first(lambda: look(paths, settings, options))
    options = group.from_first(lambda: with_base_voice(hp, paths.directory, options, is_fresh=is_fresh))
    kept = kept_front_end(paths.directory, hp, options, is_fresh=is_fresh)
    corpus = group.in_turn(lambda: read_corpus(with_demo_files(hp) if is_demo else hp, settings, options, kept))
    hp = hp.model_copy(update={"n_symbols": len(corpus.front_end.table)})
    check_same_data(group.gathered(corpus.fingerprint))
    data = DEMO if is_demo else hp.training_files
    trainer, attempt_log = build(hp, corpus, paths.directory, options, data=data, is_fresh=is_fresh, group=group)
    try:
        return fit(trainer, paths)
    finally:
        if attempt_log is not None:
            attempt_log.close()


def with_base_voice(hp: HParams, directory: Path, options: Options, *, is_fresh: bool) -> Options:
    """--from-base as the -c and --warm-start that it stands for. A run that goes on needs no beginning."""
    if options.base_steps is None or (not is_fresh and checkpoint_dir.all_checkpoints(directory / "checkpoints")):
        return options
    return replace(options, checkpoint=base_voice(hp, steps=options.base_steps), warm_start=True)


def look(paths: RunPaths, settings: Resolved, options: Options) -> tuple[bool, bool]:
    """What the run directory says before anything takes its time: whether to start anew, and on the demo corpus."""
    with refusals_explained(f"to {paths.log_directory}", next_step=f"{MAKE_ROOM} -l"):
        configure_logging(paths.log_directory)
    directory = paths.directory
    is_fresh = is_fresh_start(directory, asked=options.fresh or settings.hparams.force_model_reinit)
    goes_on = not is_fresh and checkpoint_dir.all_checkpoints(directory / "checkpoints")
    if options.checkpoint is not None and not goes_on:
        checkpoint_dir.resolve(options.checkpoint)  # a wrong -c is refused here
    return is_fresh, is_demo_wanted(settings, directory, is_fresh=is_fresh)


def build(
    hp: HParams, corpus: Corpus, directory: Path, options: Options, *, data: str, is_fresh: bool, group: Group = ALONE
) -> tuple[Trainer, RunLog | None]:
    """The trainer, restored where the directory or -c holds something to go on from. Refuses before it writes.

    What is read and written of the run is the first process's alone; the others have no log.
    """
    torch.manual_seed(hp.seed)
    model = Tacotron2(hp, n_speakers=len(corpus.speakers))
    saved, attempt = group.from_first(lambda: open_run(model, hp, corpus, directory, options, data, is_fresh))
    model.to(group.device)
    group.copy_from_first([*model.parameters(), *model.buffers()])
    group.seed_apart(hp.seed)
    log = RunLog(directory, attempt=attempt) if group.is_first else None
    trainer = group.in_turn(
        lambda: Trainer(
            hp,
            model,
            corpus,
            directory=directory,
            log=log,
            observers=observers(hp) if group.is_first else (),
            limits=Limits(options.max_steps, options.max_minutes),
            device=group.device,
            group=group,
        )
    )
    if saved is not None:
        trainer.restore(saved)
    if log is not None and saved is not None:
        set_aside(directory, saved.step, log)
        log.write(Event(saved.step, "resumed", f"from step {saved.step}", {"attempt": attempt}))
        LOG.info("going on from step %d", saved.step)
    elif log is not None:
        log.rewind(0)  # an earlier attempt may have been killed before its first checkpoint
    return trainer, log


def fit(trainer: Trainer, paths: RunPaths) -> int:
    """Trains, tells the observers, and turns the outcome into the exit code."""
    info = RunInfo(
        paths.directory,
        paths.log_directory,
        trainer.hp.canonical(),
        trainer.total_steps,
        trainer.progress.step,
        without_password(shlex.join(["python", Path(sys.argv[0]).name, *sys.argv[1:]])),
    )
    listening = None
    if trainer.group.is_first:
        listening = listening_of(trainer.hp, trainer.corpus, directory=paths.directory, emit=trainer.emit)
    if listening is not None:
        trainer.observers = [*trainer.observers, listening]
    for observer in trainer.observers:
        observer.on_start(info)
    facts = facts_of(trainer)
    trainer.emit(Event(trainer.progress.step, "started", describe(facts), facts))
    try:
        outcome = trainer.fit()
        if listening is not None and outcome.signal is None:
            trainer.group.rest()
            listening.finish()
        trainer.emit(Event(outcome.step, "ended", outcome.reason, ending(outcome, trainer)))
    except GaveUp:  # told already
        raise
    except Exception as error:  # noqa: BLE001 - for the record and who watches only; it is raised again
        trainer.emit(Event(trainer.progress.step, "crashed", f"{type(error).__name__}: {error}"))
        raise
    finally:
        trainer.group.rest()
        close_all(trainer.observers)
    if trainer.group.is_first:
        LOG.info("%s", farewell(outcome, paths, trainer, first_step=info.first_step))
    return 0 if outcome.signal is None else 128 + outcome.signal


def facts_of(trainer: Trainer) -> dict[str, Any]:
    """What a person wants to know of a run that starts."""
    return {
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
        "device": str(trainer.device),
        "training": len(trainer.corpus.train),
        "validation": len(trainer.corpus.validation),
        "batches": trainer.batches_in_epoch(0),
        "processes": trainer.group.size,
    }


def describe(facts: Mapping[str, Any]) -> str:
    shared = f", each shared by {facts['processes']} processes" if facts["processes"] > 1 else ""
    return (
        f"{facts['parameters'] / 1e6:.2f} M parameters on {facts['device']}, {facts['training']} training and "
        f"{facts['validation']} validation utterances, {facts['batches']} batches an epoch{shared}"
    )


def ending(outcome: Outcome, trainer: Trainer) -> dict[str, Any]:
    progress = trainer.progress
    best = progress.best_score if isfinite(progress.best_score) else None  # None: never validated
    return {"signal": outcome.signal, "best_score": best, "best_step": progress.best_step}


def farewell(outcome: Outcome, paths: RunPaths, trainer: Trainer, *, first_step: int) -> str:
    from monitoring.mlflow import ui_command

    was_finished = outcome.signal is None and outcome.step == first_step
    ended = "this run is already finished: it ended" if was_finished else "ended"
    run, best = paths.directory, trainer.progress.best_score
    best_step = trainer.progress.best_step
    ui = ui_command(run, trainer.hp.mlflow_tracking_uri) if trainer.hp.mlflow_logging else None
    return "\n".join(
        [
            f"{ended} at step {outcome.step} ({outcome.reason}); best score {best:.3f} at step {best_step}",
            f"pictures: {run}/alignments  sounds: {run}/samples  curves: tensorboard --logdir {paths.log_directory}",
            *([f"all runs: {ui}"] if ui else []),
            f'speak: python synthesize.py -c {run} "Hello." -o hello.wav',
        ]
    )
