"""Training: bit-exact resume, steps that are not taken, validation that changes nothing, saving, and ends."""

import multiprocessing
import os
import resource
import signal
from collections.abc import Callable
from dataclasses import asdict
from math import inf
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from checkpointing import checkpoint_file
from checkpointing import directory as checkpoint_dir
from corpus.loader import make_loader
from hparams import HParams
from run_directory.metrics_log import read_jsonl, read_metrics
from run_directory.records import StepRecord
from support.runs import (
    NO_DROPOUT,
    Frozen,
    Watched,
    assert_same,
    assert_same_run,
    poisoned,
    resumed,
    rows,
    trained,
    trainer_of,
    weights_of,
)
from training.fault_handling import Diverged
from training.trainer import Limits, StopRequest
from training.validation import Validated, Validator

Tiny = Callable[..., HParams]


# ---- the same bits


def test_the_same_seed_gives_the_same_bits(tiny: Tiny, tmp_path: Path) -> None:
    runs = [trained(tiny(), tmp_path / name, 4) for name in "ab"]
    assert runs[0].seen == runs[1].seen
    assert_same_run(*runs)


def test_another_seed_gives_other_weights(tiny: Tiny, tmp_path: Path) -> None:
    a, b = (trained(tiny(f"seed={seed}"), tmp_path / str(seed), 1) for seed in (1, 2))
    assert not torch.equal(a.model.embedding.weight, b.model.embedding.weight)


@pytest.mark.parametrize(
    ("k", "settings"),
    [
        (1, ""),
        (2, ""),
        (3, ""),  # the epoch's end: 5 utterances in batches of 2
        (4, ""),
        (6, ""),
        (7, "validation_attention_analysis=True,validate_interval=3,iters_per_checkpoint=3"),
        (2, "batch_size=1,gradient_accumulation_steps=2"),  # 5 micro-batches an epoch: the third step has one
        (3, "batch_size=1,gradient_accumulation_steps=2"),
        (4, "n_frames_per_step=2,use_bucket_batching=False"),
    ],
)
def test_interrupted_and_resumed_is_bit_exactly_the_straight_run(
    tiny: Tiny, tmp_path: Path, k: int, settings: str
) -> None:
    hp, n = tiny(settings), 8
    straight = trained(hp, tmp_path / "straight", n)
    first = trainer_of(hp, tmp_path / "cut", limits=Limits(max_steps=n))
    first.interrupt_at = k
    assert first.fit().step == k
    second = resumed(hp, tmp_path / "cut", n)
    assert first.seen + second.seen == straight.seen
    assert_same_run(straight, second)


@pytest.mark.slow
def test_resuming_with_loader_processes_is_bit_exact_too(tiny: Tiny, tmp_path: Path) -> None:
    straight = trained(tiny(), tmp_path / "straight", 3)
    with_processes = tiny("num_workers=1")
    first = trainer_of(with_processes, tmp_path / "cut", limits=Limits(max_steps=3))
    first.interrupt_at = 1
    loading: list[int] = []
    first.on_step = lambda _: loading.append(len(multiprocessing.active_children()))
    first.fit()
    assert loading == [1]
    second = resumed(with_processes, tmp_path / "cut", 3)
    assert first.seen + second.seen == straight.seen
    assert_same_run(straight, second)


@pytest.mark.spec
def test_metrics_have_each_step_once_after_a_crash(tiny: Tiny, tmp_path: Path) -> None:
    hp = tiny("iters_per_checkpoint=15")
    straight = trained(hp, tmp_path / "straight", 30)
    crashing = trainer_of(hp, tmp_path / "cut", limits=Limits(max_steps=30))

    def crash(trainer: Watched) -> None:
        if trainer.progress.step == 25:
            raise MemoryError

    crashing.on_step = crash
    with pytest.raises(MemoryError):
        crashing.fit()
    second = resumed(hp, tmp_path / "cut", 30)
    lines = [(line["type"], line["step"], line["attempt"]) for line in read_metrics(tmp_path / "cut")]
    assert lines == [("step", 10, 1), ("step", 20, 2), ("step", 30, 2), ("eval", 30, 2)]  # 20 was there twice
    assert_same_run(straight, second)


@pytest.mark.parametrize("settings", ["", "n_frames_per_step=2"])
def test_accumulated_gradients_are_those_of_one_large_batch(tiny: Tiny, tmp_path: Path, settings: str) -> None:
    hp = tiny(f"batch_size=5,{NO_DROPOUT},{settings}")
    trainer = trainer_of(hp, tmp_path, train_step=Frozen)
    (large,) = make_loader(trainer.corpus.train, trainer.batches.plan, epoch=0, r=hp.n_frames_per_step)
    gradients = []
    for micro_batches in ([large], [rows(large, slice(0, 1)), rows(large, slice(1, 3)), rows(large, slice(3, 5))]):
        trainer.train_step.optimizer.zero_grad()
        trainer.train_step.accumulate(micro_batches, step=1)
        gradients.append({n: p.grad.clone() for n, p in trainer.model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys() == dict(trainer.model.named_parameters()).keys()
    for name, expected in gradients[0].items():
        # float32 sums in another order
        torch.testing.assert_close(gradients[1][name], expected, rtol=1e-4, atol=1e-6, msg=name)


def test_a_step_that_is_not_finite_is_not_taken_and_names_its_utterances(tiny: Tiny, tmp_path: Path) -> None:
    hp = tiny("batch_size=1")
    trainer = trainer_of(hp, tmp_path, corpus=poisoned(hp, 2), limits=Limits(max_steps=5))
    states: list[dict[str, Tensor]] = [weights_of(trainer)]
    trainer.on_step = lambda t: states.append(weights_of(t))
    trainer.fit()
    (event,) = trainer.events("skipped")
    assert event.data["utterances"] == ["2"] and trainer.seen[event.step - 1] == (("2",),)
    assert_same(states[event.step - 1], states[event.step])
    for step in {1, 2, 3, 4, 5} - {event.step}:
        assert not torch.equal(states[step]["embedding.weight"], states[step - 1]["embedding.weight"])
    assert checkpoint_file.all_finite(trainer.model.state_dict()) and trainer.events("saved")
    (record,) = (r for r in trainer.records if isinstance(r, StepRecord))
    assert record.skipped == 1 and np.isfinite(record.losses["total"])


def test_an_interval_of_skipped_steps_only_is_still_recorded(tiny: Tiny, tmp_path: Path) -> None:
    hp = tiny("batch_size=5")
    trainer = trainer_of(hp, tmp_path, corpus=poisoned(hp, 0), limits=Limits(max_steps=2))
    trainer.fit()
    (record,) = (r for r in trainer.records if isinstance(r, StepRecord))
    assert record.skipped == 2 and record.losses == {}


# ---- validation


def test_validation_leaves_training_as_it_was(tiny: Tiny, tmp_path: Path) -> None:
    often = trained(tiny("validate_interval=1,validation_attention_analysis=True"), tmp_path / "often", 5)
    never = trained(tiny("validate_interval=100000"), tmp_path / "never", 5)
    assert often.losses == never.losses and often.model.training
    assert_same(often.state().model, never.state().model)
    assert_same(often.state().training["torch_rng"], never.state().training["torch_rng"])  # type: ignore[index]


def test_the_best_pointer_names_the_best_validation(tiny: Tiny, tmp_path: Path) -> None:
    trainer = trained(tiny("validate_interval=2,learning_rate=0.03,learning_rate_min=0"), tmp_path, 9)
    scores = {line["step"]: line["score"] for line in read_metrics(tmp_path) if line["type"] == "eval"}
    best = min(scores, key=lambda step: scores[step])
    pointed = checkpoint_dir.pointed(tmp_path / "checkpoints", "best")
    assert pointed is not None and pointed.name == f"step_{best:08d}.pt"
    assert trainer.progress.best_step == best and len(scores) == 5


def test_a_last_validation_that_is_the_best_is_pointed_at_though_the_step_was_saved_before(
    tiny: Tiny, tmp_path: Path
) -> None:
    trained(tiny("iters_per_checkpoint=2"), tmp_path, 4)
    pointed = checkpoint_dir.pointed(tmp_path / "checkpoints", "best")
    assert pointed is not None and pointed.name == "step_00000004.pt"
    saved = checkpoint_file.load(pointed).training
    assert saved is not None and saved["progress"]["best_step"] == 4


def test_a_validation_that_memory_does_not_suffice_for_is_told_and_what_was_trained_is_saved(
    tiny: Tiny, tmp_path: Path
) -> None:
    class Greedy(Validator):
        def run(self, **more: object) -> Validated:
            self.model.eval()
            torch.empty(10**15)
            raise AssertionError("that memory can't be there")

    plain = trained(tiny(), tmp_path / "plain", 4)
    trainer = trained(tiny("validate_interval=2"), tmp_path / "greedy", 4, validator=Greedy)
    assert [event.step for event in trainer.events("not_validated")] == [2, 4] and trainer.model.training
    assert_same(weights_of(plain), weights_of(trainer))
    assert [event.step for event in trainer.events("saved")] == [4]


# ---- saving


def test_a_full_disk_is_an_event_and_training_goes_on(tiny: Tiny, tmp_path: Path) -> None:
    trainer = trainer_of(tiny("iters_per_checkpoint=2"), tmp_path, limits=Limits(max_steps=6))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill_at_step_3(trainer: Watched) -> None:
        # the limit is the process's: it must not outlast or precede the write
        trainer.collect_saved_checkpoint(wait=True)
        room = 0 if trainer.progress.step in (3, 4) else soft  # nothing may be written at all
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))

    trainer.on_step = fill_at_step_3
    try:
        outcome = trainer.fit()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert outcome.step == 6
    assert [e.step for e in trainer.events("saved")] == [2, 6, 6]  # again after the last validation
    (failed,) = trainer.events("save_failed")
    assert failed.step == 4 and "too large" in failed.message
    told = [(event["kind"], event["step"]) for event in read_jsonl(tmp_path / "events.jsonl")]
    assert told == [("saved", 2), ("save_failed", 4), ("saved", 6), ("saved", 6)]  # in full, as soon as there was room
    assert [p.name for p in checkpoint_dir.all_checkpoints(tmp_path / "checkpoints")] == [
        "step_00000006.pt",
        "step_00000002.pt",
    ]


def test_weights_that_are_not_finite_are_not_saved(tiny: Tiny, tmp_path: Path) -> None:
    trainer = trainer_of(tiny(), tmp_path)
    with torch.no_grad():
        trainer.model.embedding.weight[0, 0] = inf
    with pytest.raises(Diverged, match="embedding.weight"):
        trainer.save()
    assert trainer.events("not_saved") and not checkpoint_dir.all_checkpoints(tmp_path / "checkpoints")


@pytest.mark.parametrize(("kept", "steps"), [(2, (8, 7, 6, 3)), (4, (8, 7, 6, 5, 3))])
def test_old_checkpoints_go_and_milestones_stay(tiny: Tiny, tmp_path: Path, kept: int, steps: tuple[int, ...]) -> None:
    trained(tiny(f"iters_per_checkpoint=1,save_interval=3,keep_checkpoints={kept}"), tmp_path, 8)
    names = [p.name for p in checkpoint_dir.all_checkpoints(tmp_path / "checkpoints")]
    assert names == [f"step_0000000{step}.pt" for step in steps]


# ---- ends


@pytest.mark.parametrize(
    ("settings", "limits", "reason", "step"),
    [
        ("epochs=2", Limits(), "epochs", 6),
        ("epochs=2,gradient_accumulation_steps=2", Limits(), "epochs", 4),
        ("", Limits(max_steps=4), "max_steps", 4),
        ("", Limits(max_minutes=1e-6), "max_minutes", 0),
        ("early_stopping=True,early_stopping_patience=2,early_stopping_min_delta=1e6,alignment_diagonal_threshold=0,"
         "validate_interval=2", Limits(max_steps=50), "early_stopping", 6),
    ],
)  # fmt: skip
def test_a_run_ends_where_it_should(
    tiny: Tiny, tmp_path: Path, settings: str, limits: Limits, reason: str, step: int
) -> None:
    trainer = trainer_of(tiny(settings), tmp_path, limits=limits)
    outcome = trainer.fit()
    assert (outcome.reason, outcome.step, outcome.signal) == (reason, step, None)
    if reason in ("epochs", "max_steps"):
        assert trainer.total_steps == step


def test_minutes_end_a_run_in_the_middle_saved(tiny: Tiny, tmp_path: Path) -> None:
    trainer = trainer_of(tiny(), tmp_path, limits=Limits(max_minutes=0.3 / 60))
    outcome = trainer.fit()
    assert outcome.reason == "max_minutes" and outcome.step > 0
    assert checkpoint_dir.newest_good(tmp_path / "checkpoints") == checkpoint_dir.checkpoint_path(
        tmp_path / "checkpoints", outcome.step
    )


def test_a_finished_run_started_again_does_nothing(tiny: Tiny, tmp_path: Path) -> None:
    trained(tiny(), tmp_path, 3)
    again = resumed(tiny(), tmp_path, 3)
    assert again.seen == [] and again.progress.step == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_the_step_saves_and_is_reported(tiny: Tiny, tmp_path: Path, number: int) -> None:
    trainer = trainer_of(tiny(), tmp_path, limits=Limits(max_steps=50))
    trainer.on_step = lambda t: os.kill(os.getpid(), number) if t.progress.step == 2 else None
    before = signal.getsignal(number)
    outcome = trainer.fit()
    assert (outcome.reason, outcome.step, outcome.signal) == ("signal", 2, number)
    assert signal.getsignal(number) is before
    assert checkpoint_dir.pointed(tmp_path / "checkpoints", "last") == checkpoint_dir.checkpoint_path(
        tmp_path / "checkpoints", 2
    )
    assert not [line for line in read_metrics(tmp_path) if line["type"] == "eval"]  # no time for that


def test_a_second_interrupt_ends_at_once() -> None:
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.signal == signal.SIGINT
        handler = signal.getsignal(signal.SIGINT)
        pid = os.fork()
        if pid == 0:  # SIG_DFL ends the process, so a child takes the second one
            handler(signal.SIGINT, None)  # type: ignore[operator, misc]
            os._exit(0)
        _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGINT


def test_the_saved_learning_rate_is_taken_only_where_asked(tiny: Tiny, tmp_path: Path) -> None:
    trained(tiny("learning_rate=2e-3"), tmp_path, 1)
    saved = checkpoint_file.load(checkpoint_dir.checkpoint_path(tmp_path / "checkpoints", 1))
    for settings, expected in (("", 1e-3), ("use_saved_learning_rate=True", 2e-3)):
        trainer = trainer_of(tiny(settings), tmp_path / (settings or "plain"))
        trainer.restore(saved)
        assert trainer.train_step.peak_rate == expected


def test_progress_survives_a_checkpoint_as_it_is(tiny: Tiny, tmp_path: Path) -> None:
    trainer = trained(tiny("validate_interval=2"), tmp_path, 3)
    saved = checkpoint_file.load(checkpoint_dir.checkpoint_path(tmp_path / "checkpoints", 3)).training
    assert saved is not None and saved["progress"] == asdict(trainer.progress)
