"""Puts a run together: directory, corpus, model, what a checkpoint brings, who watches; then trains it."""

import os
import shlex
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import torch

from audio.mel import MelFingerprint
from checkpointing import checkpoint_file
from checkpointing import directory as checkpoint_dir
from checkpointing import weights as checkpoint_weights
from checkpointing.checkpoint_file import Checkpoint
from common.errors import DataError, GaveUp, NothingToRecover, UserError
from common.files import refusals_explained
from common.log import LOG
from common.threads import keep_for_this_thread
from common.translations import language_of
from console import ConsoleObserver, configure_logging, counted_progress
from corpus.demo.builder import ensure_demo_corpus
from data_utils import Corpus, load_corpus
from hparams import HParams, Resolved
from model import Tacotron2
from parallel.process_group import ALONE, Group, joined, place_of
from report.observer import ReportFile
from run_directory import paths as run_paths_module
from run_directory import run_info
from run_directory.metrics_log import REMOTE_CLOSE_S, Observer, Queued, RunInfo, RunLog, close_all
from run_directory.records import Event
from sample_files import SampleFiles
from text.symbols import symbols
from trainer import Limits, Outcome, Trainer
from training import resume

# A thread that still draws while the interpreter ends aborts the process, and a busy machine draws slowly.
FILES_PATIENCE_S = 120.0
WAYS_ON = "end it first (Ctrl-C or SIGTERM saves), or give another -o"


@dataclass(frozen=True)
class Options:
    """The switches of train.py that are not hyperparameters."""

    output: Path | None = None
    logs: Path | None = None
    checkpoint: Path | None = None
    warm_start: bool = False
    ignore_prefixes: tuple[str, ...] = ()  # of weights that a warm start leaves out
    max_steps: int | None = None
    max_minutes: float | None = None
    fresh: bool = False
    resume_with_changes: bool = False
    skip_bad_data: bool = False
    n_gpus: int | None = None
    rank: int | None = None  # among n_gpus processes that were started by hand


def train(settings: Resolved, options: Options) -> int:
    """One launch of a run, or one process's share of it, from the first look at its directory to the exit code."""
    hp = settings.hparams
    configure_logging()
    keep_for_this_thread()
    with joined(place_of(hp, rank=options.rank, n_gpus=options.n_gpus), hp) as group, ExitStack() as alone:
        paths = run_paths_module.run_paths(options.output, options.logs, hp)
        group.from_first(lambda: alone.enter_context(run_paths_module.alone_in(paths.directory, ways_on=WAYS_ON)))
        return train_in(group, paths, settings, options)


def train_in(group: Group, paths: run_paths_module.RunPaths, settings: Resolved, options: Options) -> int:
    hp = settings.hparams
    torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark = hp.cudnn_enabled, hp.cudnn_benchmark
    is_fresh, is_demo = group.from_first(lambda: look(paths, settings, options))
    corpus = group.in_turn(lambda: read_corpus(with_demo_files(hp) if is_demo else hp, settings, options))
    check_same_data(group.gathered(corpus.fingerprint))
    data = run_paths_module.DEMO if is_demo else hp.training_files
    trainer, attempt_log = build(hp, corpus, paths.directory, options, data=data, is_fresh=is_fresh, group=group)
    try:
        return fit(trainer, paths)
    finally:
        if attempt_log is not None:
            attempt_log.close()


def look(paths: run_paths_module.RunPaths, settings: Resolved, options: Options) -> tuple[bool, bool]:
    """What the run directory says before anything takes its time: whether to start anew, and on the demo corpus."""
    with refusals_explained(f"to {paths.log_directory}", next_step=f"{run_paths_module.MAKE_ROOM} -l"):
        configure_logging(paths.log_directory)
    directory = paths.directory
    is_fresh = resume.is_fresh_start(directory, asked=options.fresh or settings.hparams.force_model_reinit)
    goes_on = not is_fresh and checkpoint_dir.all_checkpoints(directory / "checkpoints")
    if options.checkpoint is not None and not goes_on:
        checkpoint_dir.resolve(options.checkpoint)  # a wrong -c is refused here
    return is_fresh, resume.is_demo_wanted(settings, directory, is_fresh=is_fresh)


def check_same_data(fingerprints: Sequence[str]) -> None:
    if len(set(fingerprints)) > 1:
        others = [str(rank) for rank, other in enumerate(fingerprints) if other != fingerprints[0]]
        raise DataError(
            f"process {', '.join(others)} of {len(fingerprints)} found other recordings or texts than process 0: copy "
            "the same filelists and recordings to every machine, or let training_files name a shared folder"
        )


def with_demo_files(hp: HParams) -> HParams:
    """The embedded demo corpus in place of files that nobody named and that don't exist."""
    corpus = ensure_demo_corpus(progress=counted_progress("speaking the demo corpus"))
    LOG.warning("no dataset is configured: training on the embedded demo corpus in %s", corpus.root)
    return hp.model_copy(
        update={
            "training_files": str(corpus.training_files),
            "validation_files": str(corpus.validation_files),
            "dataset_path": str(corpus.root),
        }
    )


def read_corpus(hp: HParams, settings: Resolved, options: Options) -> Corpus:
    corpus = load_corpus(
        hp, skip_bad=options.skip_bad_data, progress=counted_progress("mel features"), origins=settings.origins
    )
    if corpus.problems:
        LOG.warning(
            "--skip-bad-data left out %d lines or recordings, the first: %s",
            len(corpus.problems),
            corpus.problems[0].message,
        )
    return corpus


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


def open_run(
    model: Tacotron2, hp: HParams, corpus: Corpus, directory: Path, options: Options, data: str, is_fresh: bool
) -> tuple[Checkpoint | None, int]:
    """What to go on from, perhaps weights that are in the model now, and the number of this attempt."""
    saved = None if is_fresh else own_checkpoint(directory, hp, corpus, options)
    if saved is None and options.checkpoint is not None:
        saved = start_from(checkpoint_dir.resolve(options.checkpoint), model, hp, corpus, options)
    with refusals_explained(f"to {directory}", next_step=f"{run_paths_module.MAKE_ROOM} -o"):
        if is_fresh and (aside := run_paths_module.move_aside(directory)):
            LOG.warning("starting anew; the old run is kept in %s", aside)
        attempt = run_info.write_run_info(
            directory, hp, data=data, fingerprint=corpus.fingerprint, mel=MelFingerprint.of(hp).to_dict()
        )
    return saved, attempt


def set_aside(directory: Path, step: int, log: RunLog) -> None:
    """Damaged files of later steps than the one that training goes on from: moved, never deleted."""
    for path in checkpoint_dir.all_checkpoints(directory / "checkpoints"):
        if path > checkpoint_dir.checkpoint_path(path.parent, step):
            moved = checkpoint_dir.quarantine(path)
            LOG.warning("%s is damaged and was moved to %s", path, moved)
            log.write(Event(step, "quarantined", f"{path.name} is damaged; moved to {moved.parent.name}/"))


def own_checkpoint(directory: Path, hp: HParams, corpus: Corpus, options: Options) -> Checkpoint | None:
    """The run's own newest good checkpoint, if its settings allow to go on; it beats -c."""
    path = checkpoint_dir.newest_good(directory / "checkpoints")
    damaged = checkpoint_dir.all_checkpoints(directory / "checkpoints")
    if path is None and damaged:
        raise NothingToRecover(
            f"{directory}: all {len(damaged)} checkpoints are damaged; put a good one back, or start anew with --fresh "
            "(the old run is moved aside)"
        )
    if path is None:
        return None
    if options.checkpoint is not None:
        LOG.warning("%s has its own checkpoint %s; -c is not used (--fresh would start anew)", directory, path.name)
    return resumable(path, hp, corpus, options, where=directory)


def resumable(path: Path, hp: HParams, corpus: Corpus, options: Options, *, where: Path) -> Checkpoint:
    """A checkpoint of ours that training can go on from with these settings; else a UserError with the ways on."""
    saved = checkpoint_file.load(path)
    if saved.training is None:
        raise UserError(f"{path} was stripped of what resuming needs; start anew with --fresh -c {path} --warm-start")
    if list(saved.voice.speakers) != list(corpus.speakers):
        raise UserError(
            f"{where} holds a voice of other speakers ({', '.join(saved.voice.speakers) or 'none named'} there, "
            f"{', '.join(corpus.speakers) or 'none named'} in the filelists)\n"
            "Ways on: --fresh (the old run is moved aside), another -o, or -c with --warm-start, which copies by name."
        )
    resume.check_resumable(
        hp, saved.voice.hparams, corpus_differs=saved.training["corpus"] != corpus.fingerprint,
        with_changes=options.resume_with_changes, where=where,
    )  # fmt: skip
    return saved


def start_from(path: Path, model: Tacotron2, hp: HParams, corpus: Corpus, options: Options) -> Checkpoint | None:
    """-c: with --warm-start the weights that fit; else a checkpoint of ours is gone on from, NVIDIA's loads exactly."""
    content = checkpoint_file.read(path)
    if options.warm_start:
        ignore = [*hp.ignore_layers, *checkpoint_weights.keys_under(options.ignore_prefixes, content)]
        done = checkpoint_weights.warm_start(model, content, ignore=ignore, symbols=symbols, speakers=corpus.speakers)
        LOG.info("warm start from %s: %s", path, done)
        return None
    if content.get("format") == checkpoint_file.FORMAT:
        return resumable(path, hp, corpus, options, where=path)
    if hp.normalize_mel:
        raise UserError(
            f"{path} has no mel mean and deviation, so it speaks raw log-mels (as NVIDIA's weights do), and "
            "normalize_mel=True expects standardised ones; add --preset nvidia, or --warm-start to take the weights "
            "as a beginning only"
        )
    checkpoint_weights.load_exactly(model, content, path=path)
    LOG.info("loaded all weights of %s; training starts at step 0", path)
    return None


def observers(hp: HParams) -> list[Observer]:
    """Who watches this run. All but the console sit behind queues."""
    watching: list[Observer] = [ConsoleObserver()]
    if hp.save_attention_plots:
        watching.append(Queued(SampleFiles(plot_every=hp.attention_plot_frequency), patience_s=FILES_PATIENCE_S))
    if hp.tensorboard_logging:
        from smart_tuner.monitors.tensorboard import TensorBoardObserver

        watching.append(
            Queued(
                TensorBoardObserver(
                    images=hp.log_attention_weights,
                    alignment_scalars=hp.log_alignment_metrics,
                    picture_every=hp.attention_plot_frequency,
                ),
                patience_s=FILES_PATIENCE_S,
            )
        )
    if hp.mlflow_logging:
        from smart_tuner.monitors.mlflow import MLflowObserver

        watching.append(
            Queued(
                MLflowObserver(
                    experiment=hp.mlflow_experiment_name,
                    tracking_uri=hp.mlflow_tracking_uri,
                    images=hp.log_attention_weights,
                    alignment_scalars=hp.log_alignment_metrics,
                    picture_every=hp.attention_plot_frequency,
                ),
                patience_s=REMOTE_CLOSE_S,
            )
        )
    if hp.debug_reporting:
        from smart_tuner.monitors.debug_report import DebugReport

        watching.append(Queued(DebugReport(every=hp.debug_report_interval), patience_s=FILES_PATIENCE_S))
    if hp.telegram_monitoring:
        watching += telegram_observers(hp)
    # last: at the end it shows what the others wrote
    watching.append(Queued(ReportFile(language_of(os.environ)), patience_s=FILES_PATIENCE_S, closes_last=True))
    return watching


def telegram_observers(hp: HParams) -> list[Observer]:
    """One, where the environment holds a bot's token and a chat."""
    from smart_tuner.monitors.telegram import TelegramObserver, account_from

    account = account_from(os.environ)
    if account is None:
        return []
    closing = threading.Event()
    every, language = hp.telegram_notification_interval, hp.telegram_language
    observer = TelegramObserver(account, every=every, language=language, closing=closing)
    return [Queued(observer, closing=closing, patience_s=REMOTE_CLOSE_S)]


def fit(trainer: Trainer, paths: run_paths_module.RunPaths) -> int:
    """Trains, tells the observers, and turns the outcome into the exit code."""
    info = RunInfo(
        paths.directory,
        paths.log_directory,
        trainer.hp.canonical(),
        trainer.total_steps,
        trainer.progress.step,
        run_info.without_password(shlex.join(["python", Path(sys.argv[0]).name, *sys.argv[1:]])),
    )
    for observer in trainer.observers:
        observer.on_start(info)
    facts = facts_of(trainer)
    trainer.emit(Event(trainer.progress.step, "started", describe(facts), facts))
    try:
        outcome = trainer.fit()
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


def farewell(outcome: Outcome, paths: run_paths_module.RunPaths, trainer: Trainer, *, first_step: int) -> str:
    from smart_tuner.monitors.mlflow import ui_command

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
