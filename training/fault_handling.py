"""Carries out what the recovery policy decides for each step and validation, and keeps steps within memory."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, TypeVar

import torch

from checkpointing.checkpoint_file import Checkpoint
from common.errors import first_line, is_out_of_memory
from config.hparams_diff import differences
from corpus.batch import Batch
from hparams import HParams
from parallel.process_group import SINGLE_PROCESS, ProcessGroup
from recovery.advice import RULES
from recovery.ladder import Decision, Fault, Position, RecoveryPolicy, RecoveryState
from run_directory.records import Event
from training.progress import Progress
from training.rollback import Rollback
from training.train_step import StepOutcome, StepResult, TrainStep

T = TypeVar("T")
KEPT_IN_DOUBT = 5  # checkpoints more than usual, while steps are bad


class Diverged(Exception):
    """Training can't go on from the weights as they are."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


class FaultRecovery:
    """Runs the steps of one run, follows its recovery policy, and says when it must go back."""

    def __init__(
        self,
        hp: HParams,
        train_step: TrainStep,
        rollback: Rollback,
        *,
        emit: Callable[[Event], None],
        group: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        self.hp, self.train_step, self.rollback, self.emit, self.group = hp, train_step, rollback, emit, group
        self.policy = RecoveryPolicy(hp)

    def state(self) -> dict[str, Any]:
        """For the checkpoint."""
        return asdict(self.policy.state)

    def restore(self, saved: Checkpoint, progress: Progress, *, corpus: str) -> None:
        """progress: the checkpoint's, which learns of later rollbacks here; corpus: the fingerprint of today's data."""
        assert saved.training is not None
        self.policy.state = RecoveryState.of(saved.training.get("recovery", {}))
        has_changed = any(differences(self.hp, saved.voice.hparams).values())
        if has_changed or saved.training["corpus"] != corpus:
            self.policy.new_phase()  # losses may well be of another size now
        self.rollback.restore(progress)

    # -- memory -----------------------------------------------------------------------------------------------

    def run(self, micro_batches: Sequence[Batch], progress: Progress, *, step: int) -> StepResult:
        """A step, in as many parts as memory needs."""
        attempt = partial(
            self.train_step.run,
            step=step,
            rate_scale=progress.learning_rate_scale,
            limits=self.policy.limits,
            rate_factor=progress.rollback_scale * self.policy.rate_factor,
            clip_factor=self.policy.clip_factor,
        )
        return self._run_within_memory(attempt, micro_batches, progress, step=step)

    def rehearse(self, longest: Batch, progress: Progress) -> None:
        """So that memory ends in the first minute, if it must, and not when this batch has its turn."""
        attempt = partial(self.train_step.rehearse, step=progress.step)
        self._run_within_memory(attempt, [longest], progress, step=progress.step)

    def _run_within_memory(
        self, attempt: Callable[[Sequence[Batch]], T], micro_batches: Sequence[Batch], progress: Progress, *, step: int
    ) -> T:
        while True:
            parts = [part for batch in micro_batches for part in batch.split(progress.splits)]
            try:
                return attempt(parts)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if self.group.size > 1:  # the others are in the middle of this step: all start anew, in smaller parts
                    self._split_further(parts, progress, step, first_line(error))
                    raise
                failure = error.with_traceback(None)  # which would keep the tensors of the step alive
            self.train_step.undo_step()
            self._split_further(parts, progress, step, first_line(failure))

    def _split_further(self, parts: Sequence[Batch], progress: Progress, step: int, reason: str) -> None:
        """GaveUp where a part is a single utterance already."""
        largest = max(map(len, parts))
        if largest == 1:
            names = [name for part in parts for name in part.utterance_ids]
            fault = Fault("out_of_memory", f"memory does not suffice for a single utterance: {reason}")
            raise self.rollback.gave_up(fault, step=step, utterances=names)
        progress.splits *= 2
        self.rollback.journal.write(splits=progress.splits)
        message = (
            f"{reason} - each batch is now taken in {progress.splits} parts, which add up to the same gradient, but "
            f"more slowly. {RULES['out_of_memory'].advice[0]}"
        )
        self.emit(Event(step, "out_of_memory", message, {"splits": progress.splits, "utterances": largest}))

    def skip_if_out_of_memory(self, validate: Callable[[], T], *, step: int) -> T | None:
        """Runs `validate`; returns None (and emits `not_validated`) when it runs out of memory."""
        try:
            return validate()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            message = f"memory does not suffice for a validation ({first_line(error)}); training goes on without it"
        self.train_step.model.train()
        self.emit(Event(step, "not_validated", message))
        return None

    # -- decisions --------------------------------------------------------------------------------------------

    def after_step(self, done: StepOutcome, micro_batches: Sequence[Batch], *, step: int, at: Position) -> None:
        """Reports what was wrong, if anything was. Diverged if the run must go back."""
        if done.fault is None:
            if done.is_taken:
                self._follow(step, self.policy.after_step(step, None, loss=done.loss, norm=done.norm, at=at))
            return
        broken = self._of_all(broken_utterances(micro_batches))
        names = broken or self._of_all([n for batch in micro_batches if batch.counts for n in batch.utterance_ids])
        why = f"; values that are not finite are in the mel of {', '.join(broken)}" if broken else ""
        message = f"{done.fault.message}{why}; the step was not taken"
        self.emit(Event(step, "skipped", message, {"reason": done.fault.kind, "utterances": names}))
        self.rollback.suspect(names)
        if not broken and done.fault.kind == "not_finite":
            self.check(step)
        decision = self.policy.after_step(
            step, done.fault, loss=done.loss, norm=done.norm, at=at, is_data_bad=bool(broken)
        )
        self._follow(step, decision)

    def _of_all(self, names: list[str]) -> list[str]:
        return [name for part in self.group.all_gather(names) for name in part]

    def after_validation(self, progress: Progress, alignment: float | None, loss: float) -> None:
        """alignment: of free-running speech, where that is measured. Diverged if the run must go back."""
        if not loss < float("inf"):
            self.check(progress.step)
        if alignment is not None:
            decision = self.policy.after_validation(progress.step, alignment, at=progress.position, hp=self.hp)
            self._follow(progress.step, decision)

    def _follow(self, step: int, decision: Decision) -> None:
        for kind, message in decision.events:
            self.emit(Event(step, kind, message))
        if decision.fault is not None:
            raise Diverged(decision.fault)

    def check(self, step: int) -> None:
        """Diverged if weights, statistics or optimiser are not finite: skipping steps does not help them."""
        damage = next(filter(None, self.group.all_gather(self.train_step.find_non_finite_state())), None)
        if damage is not None:
            raise Diverged(Fault("damaged", f"{damage} holds values that are not finite", onset=step))

    def new_phase(self) -> None:
        """Losses and alignments from here on are not comparable with those before."""
        self.policy.new_phase()

    # -- saving -----------------------------------------------------------------------------------------------

    @property
    def keep_checkpoints(self) -> int:
        """How many, so that what lies before the first bad step is not pruned."""
        return self.hp.keep_checkpoints + (KEPT_IN_DOUBT if self.policy.is_in_doubt else 0)

    def saved(self, step: int) -> None:
        """A checkpoint of this step has been written and verified."""
        self.rollback.saved(step, is_in_doubt=self.policy.is_in_doubt)


def broken_utterances(batches: Sequence[Batch]) -> list[str]:
    """Whose mels hold values that are not finite."""
    return [
        name
        for batch in batches
        for name, is_whole in zip(batch.utterance_ids, torch.isfinite(batch.mel).all(2).all(1).tolist(), strict=True)
        if not is_whole
    ]
