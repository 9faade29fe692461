"""One launch of a run: its directory, its corpus, its trainer with what a checkpoint brings, and how it ended."""

import math
import shlex
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import torch

from common.busy_processors import yielding_to_other_programs
from common.errors import GaveUp, TimeIsUp, UserError, cause_of
from common.log import LOG
from common.redaction import argument_without_secrets
from common.threads import keep_to_share, one_thread_for_others
from config.unused_settings import unused_settings
from data_utils import Corpus
from hparams import HParams, Resolved
from model import Tacotron2
from monitoring.logging_setup import configure_logging
from monitoring.observer import Recorder, RunInfo
from monitoring.setup import observers
from parallel.devices import idle_gpu
from parallel.process_group import SINGLE_PROCESS, ProcessGroup, process_group, resolve_rank
from run_directory.metrics_log import RunLog
from run_directory.paths import RunPaths, exclusive_lock, run_paths
from run_directory.records import Event
from training.base_voice import base_voice
from training.corpus_setup import check_same_data, demo_notice, read_corpus
from training.listening import Listening, listening_of
from training.mixed_precision import bf16_hint
from training.options import Options
from training.resume import RunStart, inspect_run, kept_front_end, prepare_run, set_aside_damaged
from training.summary import closing_summary, describe, ending, facts_of
from training.trainer import Limits, StopRequest, Trainer

WHAT_NEXT = "end it first (Ctrl-C or SIGTERM saves), or give another -o"
MakeTrainer = Callable[..., Trainer]


def train(settings: Resolved, options: Options, *, make_trainer: MakeTrainer = Trainer) -> int:
    """One launch of a run, or one process's share of it, from the first look at its directory to the exit code."""
    hp = settings.hparams
    configure_logging()
    keep_to_share()
    one_thread_for_others()
    torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark = hp.cudnn_enabled, hp.cudnn_benchmark
    with process_group(resolve_rank(hp, rank=options.rank, n_gpus=options.n_gpus), hp) as group, ExitStack() as lock:
        paths = run_paths(options.output, options.logs, hp)
        group.run_on_rank0(lambda: lock.enter_context(exclusive_lock(paths.directory, what_next=WHAT_NEXT)))
        if group.is_first and (unused := unused_settings(settings)):
            LOG.warning("settings without effect: %s", "; ".join(unused))
        start = group.run_on_rank0(lambda: inspect_run(paths, settings, options))
        if group.is_first and group.device.type == "cpu" and (reason := idle_gpu()):
            LOG.warning("%s", reason)
        if group.is_first and not start.goes_on and (hint := bf16_hint(hp, group.device)):
            LOG.info("%s", hint)
        front_end = kept_front_end(start, hp, options)
        corpus = group.run_one_at_a_time(
            lambda: read_corpus(settings, options, is_demo=start.is_demo, front_end=front_end)
        )
        check_same_data(group.all_gather(corpus.fingerprint))
        begun = group.run_on_rank0(lambda: with_base_voice(hp, corpus, start, options))
        if begun is None:
            return 0
        options = begun
        hp = hp.model_copy(update={"n_symbols": len(corpus.front_end.table)})
        trainer = build_trainer(hp, corpus, start, options, group=group, make_trainer=make_trainer)
        return fit(trainer, paths, notice=demo_notice(settings) if start.is_demo else "")


def with_base_voice(hp: HParams, corpus: Corpus, start: RunStart, options: Options) -> Options | None:
    """--from-base as the -c and --warm-start that it stands for. A run that goes on needs no beginning.

    --max-minutes counts the making of it: None, and said, where they end first; else what is left of them.
    """
    if options.base_steps is None or start.goes_on:
        return options
    began, minutes = time.monotonic(), options.max_minutes
    ends_at = math.inf if minutes is None else began + 60 * minutes
    try:
        base = base_voice(hp, corpus, steps=options.base_steps, ends_at=ends_at)
    except TimeIsUp:
        LOG.warning("time is up before the base voice is made; the same command goes on with it")
        return None
    left = None if minutes is None else max(0.0, ends_at - time.monotonic()) / 60
    return replace(options, checkpoint=base, warm_start=True, max_minutes=left)


def build_trainer(
    hp: HParams,
    corpus: Corpus,
    start: RunStart,
    options: Options,
    *,
    group: ProcessGroup = SINGLE_PROCESS,
    make_trainer: MakeTrainer = Trainer,
) -> Trainer:
    """The trainer, restored where the directory or -c holds something to go on from. Refuses before it writes.

    What is read and written of the run is the first process's alone; the others' recorders do nothing.
    """
    torch.manual_seed(hp.seed)
    model = Tacotron2(hp, n_speakers=len(corpus.speakers))
    saved, attempt = group.run_on_rank0(lambda: prepare_run(start, model, hp, corpus, options))
    model.to(group.device)
    if group.device.type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32, as PyTorch's convolutions and LSTMs have it anyway
    group.broadcast_tensors([*model.parameters(), *model.buffers()])
    group.seed_by_rank(hp.seed)
    recorder = Recorder(RunLog(start.directory, attempt=attempt), observers(hp)) if group.is_first else Recorder()
    trainer = group.run_one_at_a_time(
        lambda: make_trainer(
            hp,
            model,
            corpus,
            directory=start.directory,
            recorder=recorder,
            limits=Limits(options.max_steps, options.max_minutes),
            device=group.device,
            group=group,
        )
    )
    if saved is None:
        recorder.rewind(0)  # an earlier attempt may have been killed before its first checkpoint
        return trainer
    trainer.restore(saved)
    if recorder.log is not None:
        set_aside_damaged(start.directory, saved.step, recorder.log)
        recorder.log.write(Event(saved.step, "resumed", f"from step {saved.step}", {"attempt": attempt}))
        LOG.info("going on from step %d", saved.step)
    return trainer


def add_listener(trainer: Trainer, paths: RunPaths) -> Listening | None:
    """With listen_every, among the observers of the first process."""
    recorder = trainer.recorder
    if not trainer.group.is_first:
        return None
    listening = listening_of(trainer.hp, trainer.corpus, directory=paths.directory, emit=recorder.emit)
    if listening is not None:
        recorder.observers = [*recorder.observers, listening]
    return listening


def fit(trainer: Trainer, paths: RunPaths, *, notice: str = "") -> int:
    """Trains, tells the observers, and turns the outcome into the exit code. UserError where steps are not saved.

    notice: to be read again at the end.
    """
    recorder, first_step, listening = trainer.recorder, trainer.progress.step, add_listener(trainer, paths)
    command = shlex.join(["python", Path(sys.argv[0]).name, *map(argument_without_secrets, sys.argv[1:])])
    recorder.start(
        RunInfo(
            directory=paths.directory,
            log_directory=paths.log_directory,
            hparams=trainer.hp.canonical(),
            total_steps=trainer.total_steps,
            first_step=first_step,
            command=command,
        )
    )
    facts = facts_of(trainer)
    recorder.emit(Event(first_step, "started", describe(facts), facts))
    try:
        with yielding_to_other_programs():
            outcome = trainer.fit()
        if listening is not None and outcome.signal is None:
            trainer.group.long_operation()
            with StopRequest() as stop:
                listening.finish(is_ending=lambda: stop.signal is not None)
        recorder.emit(Event(outcome.step, "ended", outcome.reason, ending(outcome, trainer)))
    except GaveUp:  # reported already
        raise
    except Exception as error:  # noqa: BLE001 - for the record and who watches only; it is raised again
        message = f"{type(error).__name__}: {error}"
        recorder.emit(Event(trainer.progress.step, "crashed", message, {"cause": cause_of(error)}))
        raise
    finally:
        trainer.group.long_operation()
        recorder.close()
    if trainer.group.is_first:
        LOG.info("%s", closing_summary(outcome, paths, trainer, first_step=first_step))
        if notice:
            LOG.warning("%s", notice)
    refuse_lost_steps(trainer, paths)
    return 0 if outcome.signal is None else 128 + outcome.signal


def refuse_lost_steps(trainer: Trainer, paths: RunPaths) -> None:
    """UserError if the last steps could not be saved."""
    if trainer.lost_steps:
        first, last = trainer.lost_steps
        raise UserError(
            f"not saved: steps {first} to {last} ({trainer.saving.problem}); free space for {paths.directory} (df -h) "
            "and run the same command"
        )
