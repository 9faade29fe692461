"""Trainers on the smallest corpus: trained, resumed, poisoned, and compared to the bit."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from checkpointing import checkpoint_file
from checkpointing import directory as checkpoint_dir
from corpus.batch import Batch
from corpus.mel_cache import read_mel
from data_utils import Corpus, load_corpus
from hparams import HParams
from model import Tacotron2
from monitoring.observer import Observer, Recorder
from run_directory.metrics_log import RunLog
from run_directory.paths import RunPaths
from run_directory.records import Event, Record, StepRecord
from training.batches import StepData
from training.options import Options
from training.resume import RunStart
from training.session import build_trainer, fit
from training.train_step import TrainStep
from training.trainer import Limits, Trainer
from training.validation import Validated, Validator

CPU = torch.device("cpu")
_open_recorders: list[Recorder] = []


@pytest.fixture(autouse=True)
def logs_are_closed() -> Iterator[None]:
    yield
    while _open_recorders:
        _open_recorders.pop().close()


class KeptRecords(Recorder):
    """A run's recorder that keeps every record."""

    def __init__(self, log: RunLog | None, observers: Sequence[Observer] = ()) -> None:
        super().__init__(log, observers)
        self.records: list[Record] = []

    def emit(self, record: Record) -> None:
        self.records.append(record)
        super().emit(record)


class Watched(Trainer):
    """Keeps the utterances of every micro-batch; a signal comes during step `interrupt_at`."""

    recorder: KeptRecords
    interrupt_at = -1
    on_step: Callable[["Watched"], None] = staticmethod(lambda trainer: None)

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.seen: list[tuple[Sequence[str], ...]] = []

    def _step(self, data: StepData) -> None:
        self.seen.append(tuple(batch.utterance_ids for batch in data.micro_batches))
        if self.progress.step + 1 == self.interrupt_at:
            os.kill(os.getpid(), signal.SIGTERM)
        super()._step(data)
        self.on_step(self)

    @property
    def records(self) -> list[Record]:
        return self.recorder.records

    def events(self, kind: str) -> list[Event]:
        return [r for r in self.records if isinstance(r, Event) and r.kind == kind]

    @property
    def losses(self) -> list[float]:
        return [r.losses["total"] for r in self.records if isinstance(r, StepRecord)]


def trainer_of(
    hp: HParams,
    directory: Path,
    *,
    limits: Limits | None = None,
    corpus: Corpus | None = None,
    attempt: int = 1,
    observers: Sequence[Observer] = (),
    train_step: Callable[[HParams, Tacotron2, Corpus, torch.device], TrainStep] = TrainStep,
    validator: Callable[[HParams, Tacotron2, Corpus, torch.device], Validator] = Validator,
) -> Watched:
    """train_step, validator: what makes the ones that take steps and validate."""
    model, corpus = model_of(hp), corpus or load_corpus(hp)
    recorder = KeptRecords(RunLog(directory, attempt=attempt), observers)
    _open_recorders.append(recorder)
    return Watched(
        hp,
        model,
        corpus,
        directory=directory,
        recorder=recorder,
        limits=limits,
        device=CPU,
        train_step=train_step(hp, model, corpus, CPU),
        validator=validator(hp, model, corpus, CPU),
    )


def trained(hp: HParams, directory: Path, steps: int, **more: Any) -> Watched:
    trainer = trainer_of(hp, directory, limits=Limits(max_steps=steps), **more)
    trainer.fit()
    return trainer


def resumed(hp: HParams, directory: Path, steps: int) -> Watched:
    trainer = trainer_of(hp, directory, limits=Limits(max_steps=steps), attempt=2)
    newest = checkpoint_dir.newest_good(directory / "checkpoints")
    assert newest is not None
    torch.manual_seed(999)  # whatever the new process has drawn meanwhile
    trainer.restore(checkpoint_file.load(newest))
    trainer.fit()
    return trainer


def assert_same(a: object, b: object, where: str = "state") -> None:
    """To the last bit."""
    if isinstance(a, Tensor):
        assert torch.equal(a, b), where  # type: ignore[arg-type]
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where  # type: ignore[attr-defined]
        for key, value in a.items():
            assert_same(value, b[key], f"{where}.{key}")  # type: ignore[index]
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where  # type: ignore[arg-type]
        for i, (x, y) in enumerate(zip(a, b, strict=True)):  # type: ignore[arg-type]
            assert_same(x, y, f"{where}[{i}]")
    else:
        assert a == b, where


def assert_same_run(a: Watched, b: Watched) -> None:
    mine, other = a.state(), b.state()
    assert_same(mine.model, other.model, "model")
    assert_same(mine.training, other.training, "training")


def weights_of(trainer: Trainer) -> dict[str, Tensor]:
    return {name: t.clone() for name, t in trainer.model.state_dict().items()}


# ---- one step


class Frozen(TrainStep):
    """Batch normalisation by running statistics: with a batch's own ones, a loss is no mean over its utterances."""

    def accumulate(self, micro_batches: Sequence[Batch], *, step: int) -> dict[str, Tensor]:
        for module in self.model.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.eval()
        return super().accumulate(micro_batches, step=step)


def rows(batch: Batch, part: slice) -> Batch:
    """Some utterances of a batch, with its padding."""
    names = ("text", "text_lengths", "mel", "mel_lengths", "gate", "utterance_ids")
    return replace(batch, **{name: getattr(batch, name)[part] for name in names}, n_frames=-1)


NO_DROPOUT = ",".join(
    f"{name}=0"
    for name in (
        "dropout_rate",
        "encoder_dropout_rate",
        "postnet_dropout_rate",
        "p_attention_dropout",
        "p_decoder_dropout",
    )
)


def poisoned(hp: HParams, index: int) -> Corpus:
    """One training recording's mel becomes NaN on disk after it was checked."""
    corpus = load_corpus(hp)
    feature = corpus.train.features[index]
    np.save(feature.mel_path, np.full_like(read_mel(feature.mel_path), np.nan))
    return corpus


def model_of(hp: HParams) -> Tacotron2:
    torch.manual_seed(hp.seed)
    return Tacotron2(hp)


def validated(hp: HParams, model: Tacotron2, corpus: Corpus) -> Validated:
    return Validator(hp, model, corpus, CPU).run()


def run_to(hp: HParams, directory: Path, options: Options, *, is_fresh: bool = False) -> int:
    """One launch without the command line. -> the step it reached."""
    paths = RunPaths(directory, directory / "logs", True)
    start = RunStart(directory, is_fresh, "test")
    trainer = build_trainer(hp, load_corpus(hp), start, options)
    assert fit(trainer, paths) == 0
    return trainer.progress.step
