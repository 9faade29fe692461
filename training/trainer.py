"""`Trainer.fit()`: the loop, when to validate, when to save, when to stop."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import ceil, isfinite
from pathlib import Path
from typing import Any

import torch

from checkpointing.background_writer import CheckpointWriter
from checkpointing.checkpoint_file import Checkpoint
from common.signals import StopRequest
from common.step_schedule import Reduction
from data_utils import Corpus
from hparams import HParams
from model import Tacotron2
from monitoring.observer import Recorder
from parallel.process_group import SINGLE_PROCESS, ProcessGroup
from run_directory.records import EvalRecord, Event
from training.batches import StepData, TrainingBatches
from training.fault_handling import Diverged, FaultRecovery
from training.module_norms import module_norms
from training.progress import Progress
from training.rollback import Rollback
from training.saving import Saving
from training.step_statistics import StepStatistics
from training.train_step import StepResult, TrainStep
from training.validation import Validated, Validator
from training.voice_info import voice_info_of

LOG_EVERY = 10  # steps averaged in one record; reading losses waits for the device, so not every step


@dataclass(frozen=True)
class Limits:
    """When a run ends besides epochs and early stopping. None = no such limit."""

    max_steps: int | None = None
    max_minutes: float | None = None


@dataclass(frozen=True)
class Outcome:
    """Why `fit` returned. `signal` is the number of the one that interrupted it, or None."""

    reason: str
    step: int
    signal: int | None = None


@dataclass(frozen=True)
class PendingStep:
    """A step whose loss is still on the device."""

    step: int
    result: StepResult
    data: StepData


class Trainer:
    """Trains one model on one corpus into one run directory."""

    def __init__(
        self,
        hp: HParams,
        model: Tacotron2,
        corpus: Corpus,
        *,
        directory: Path,
        recorder: Recorder,
        device: torch.device,
        limits: Limits | None = None,
        group: ProcessGroup = SINGLE_PROCESS,
        train_step: TrainStep | None = None,
        faults: FaultRecovery | None = None,
        validator: Validator | None = None,
        writer: CheckpointWriter | None = None,
    ) -> None:
        """train_step, faults, validator, writer: who takes steps and so on; None = as the settings say."""
        self.hp, self.model, self.corpus, self.device = hp, model.to(device), corpus, device
        self.recorder, self.group, self.limits = recorder, group, limits or Limits()
        self.train_step = train_step or TrainStep(hp, self.model, corpus, device, group)
        self.faults = faults or self._fault_recovery(directory)
        writer = writer or CheckpointWriter(
            directory / "checkpoints", keep_last=hp.keep_checkpoints, milestone_every=hp.save_interval
        )
        self.saving = Saving(writer, recorder.emit)
        self.batches = TrainingBatches(
            hp,
            corpus,
            on_lost_loader=lambda message: recorder.emit(Event(self.progress.step, "loader_died", message)),
            pin_memory=device.type == "cuda",
            rank=group.rank,
            n_processes=group.size,
        )
        self.validator = validator or Validator(hp, self.model, corpus, device)
        self.progress = Progress()
        self.statistics = StepStatistics()
        self.reduction = Reduction.of(hp.reduction_schedule, hp.n_frames_per_step)
        self.sync_every = self.sync_interval(device)
        self._pending: list[PendingStep] = []
        self._is_rehearsed = device.type != "cuda"
        self._validated_at = -1
        self._stopped_by: int | None = None  # the signal that any process got

    def _fault_recovery(self, directory: Path) -> FaultRecovery:
        rollback = Rollback(
            self.hp,
            directory=directory,
            corpus=self.corpus.fingerprint,
            is_half=self.train_step.precision.dtype is not None,
            emit=self.recorder.emit,
            group=self.group,
        )
        return FaultRecovery(self.hp, self.train_step, rollback, emit=self.recorder.emit, group=self.group)

    def sync_interval(self, device: torch.device) -> int:
        """Steps between two reads of how they went, which wait for the device.

        On a CPU there is nothing to wait for, and the loss scale of fp16 is moved by the host.
        """
        return 1 if device.type == "cpu" or self.train_step.precision.scaler is not None else LOG_EVERY

    # -- the loop ---------------------------------------------------------------------------------------------

    def fit(self) -> Outcome:
        """Trains until a limit, early stopping, or a signal; the last step is validated and saved.

        GaveUp where training fails again and again, with the diagnosis in `diagnosis.json`.
        """
        minutes = self.limits.max_minutes
        deadline = None if minutes is None else time.monotonic() + 60 * minutes
        self.model.train()
        with StopRequest() as stop:
            reason = self._reason_to_stop(stop, deadline)
            if reason:
                return Outcome(reason, self.progress.step)
            try:
                self.faults.rollback.begin(self.progress, self._state_of_all)
                while True:
                    try:
                        reason = self._train(stop, deadline)
                        break
                    except Diverged as diverged:
                        self._roll_back(diverged)
            finally:
                self.collect_saved_checkpoint(wait=True)
        return Outcome(reason, self.progress.step, self._stopped_by)

    def _train(self, stop: StopRequest, deadline: float | None) -> str:
        """Steps until there is a reason to stop. Diverged if they lead nowhere."""
        reason = self._reason_to_stop(stop, deadline)
        if not reason:
            for data in self.batches.steps(self.progress, r=lambda: self.model.r):
                self._step(data)
                self._after_step()
                reason = self._reason_to_stop(stop, deadline)
                if reason:
                    break
        self._finish(interrupted=self._stopped_by is not None)
        return reason or "epochs"

    def _roll_back(self, diverged: Diverged) -> None:
        self.collect_saved_checkpoint(wait=True)
        self._pending.clear()
        self._record_statistics()
        self.restore(self.faults.rollback.roll_back(diverged.fault, self.progress))
        self.model.train()
        self._validated_at = -1

    def _reason_to_stop(self, stop: StopRequest, deadline: float | None) -> str | None:
        progress = self.progress
        is_late = deadline is not None and time.monotonic() >= deadline
        got_signal, is_late_anywhere = self.group.all_reduce_max(stop.signal or 0, is_late)
        if got_signal:
            self._stopped_by = got_signal
            return "signal"
        if self.limits.max_steps is not None and progress.step >= self.limits.max_steps:
            return "max_steps"
        if progress.epoch >= self.hp.epochs:
            return "epochs"
        if is_late_anywhere:
            return "max_minutes"
        is_last_phase = progress.step >= self.reduction.last_change
        return "early_stopping" if is_last_phase and progress.should_stop_early(self.hp) else None

    @property
    def total_steps(self) -> int | None:
        """Where the run ends if nothing stops it early: by epochs, or by `max_steps`; None if no end is named."""
        if self.hp.epochs == HParams.model_fields["epochs"].default:  # a bound for ever, and no plan
            return self.limits.max_steps
        by_epochs = self.hp.epochs * ceil(self.batches.in_epoch(0) / self.hp.gradient_accumulation_steps)
        return min(by_epochs, self.limits.max_steps or by_epochs)

    @property
    def epoch_now(self) -> float:
        return self.progress.epoch + self.progress.batch_in_epoch / max(self.batches.in_epoch(self.progress.epoch), 1)

    @property
    def lost_steps(self) -> tuple[int, int] | None:
        """The first and the last step that no checkpoint holds; None where all are saved, or saved elsewhere."""
        newest, last = self.saving.newest, self.progress.step
        return (newest + 1, last) if self.group.is_first and newest < last else None

    # -- one step ---------------------------------------------------------------------------------------------

    def _step(self, data: StepData) -> None:
        """One optimiser step, and what it adds to the next record."""
        step = self.progress.step + 1
        self._move_r(step)
        result = self.faults.run(data.micro_batches, self.progress, step=step)
        self._pending.append(PendingStep(step, result, data))
        self.progress.step = step
        self.statistics.add_data(data)
        if step % self.sync_every == 0:
            self._read_pending_steps()
        if not self._is_rehearsed:  # after a step, as the optimiser's state takes memory too
            self._is_rehearsed = True
            self._rehearse()

    def _read_pending_steps(self) -> None:
        """Reads how the last steps went, which waits for the device once. Diverged if the run must go back.

        Whether each was taken has been decided on the device, by the limits of the last read.
        """
        pending, self._pending = self._pending, []
        numbers = torch.stack([one.result.numbers for one in pending]).tolist() if pending else []
        for one, read in zip(pending, numbers, strict=True):
            outcome = one.result.outcome(*read)
            self.statistics.add(outcome, one.result.losses)
            if one.result.event is not None:
                self.recorder.emit(one.result.event)
            self.faults.after_step(outcome, one.data.micro_batches, step=one.step, at=one.data.at)

    def _rehearse(self) -> None:
        """The largest batch, with the smallest r of all phases, which takes the most decoder steps."""
        r, self.model.r = self.model.r, min(r for _, r in self.reduction.phases)
        self.faults.rehearse(self.batches.largest(self.progress.epoch, r=self.model.r), self.progress)
        self.model.r = r

    def _move_r(self, step: int) -> None:
        """The r of this step. Early stopping starts to count anew where it changes."""
        self.model.r = r = self.reduction.at(step)
        if r != self.reduction.at(step - 1):
            self.progress.bad_validations = 0
            self.faults.new_phase()
            self.recorder.emit(Event(step, "reduction", f"{r} frames a decoder step from here", {"r": r}))

    # -- between steps ----------------------------------------------------------------------------------------

    def _after_step(self) -> None:
        step, hp = self.progress.step, self.hp
        self.recorder.step_done(step)
        self.collect_saved_checkpoint()
        if step % LOG_EVERY == 0:
            self._record_statistics()
        if step % hp.validate_interval == 0:
            self.validate()
        due = hp.save_interval and step % hp.save_interval == 0
        if due or step % hp.iters_per_checkpoint == 0 or self.progress.best_step == step:
            self.save()

    def _finish(self, *, interrupted: bool) -> None:
        self._record_statistics()
        is_unjudged = not interrupted and self._validated_at != self.progress.step
        if is_unjudged:
            self.validate()
        is_unsaved = self.group.broadcast(not self.saving.holds(self.progress.step))  # the first process knows
        if is_unjudged or is_unsaved:  # the checkpoint holds what the validation changed
            self.save()

    def _record_statistics(self) -> None:
        """One record for the steps since the last one."""
        self._read_pending_steps()
        all_gather, self.statistics = self.statistics, StepStatistics()
        if all_gather.n_steps == 0:
            return
        step, hp = self.progress.step, self.hp
        is_report_due = hp.debug_reporting and step % hp.debug_report_interval < LOG_EVERY
        record = all_gather.record(
            step=step,
            epoch=self.epoch_now,
            learning_rate=self.train_step.rate,
            stats=self.corpus.stats,
            group=self.group,
            modules=module_norms(self.model) if is_report_due else {},
        )
        self.recorder.emit(record)

    # -- validation -------------------------------------------------------------------------------------------

    def validate(self) -> EvalRecord | None:
        """The first process validates while the others wait; all follow its result. None: for lack of memory."""
        self._read_pending_steps()
        self._validated_at = self.progress.step
        with self.statistics.paused():
            result = self._validate_on_first()
            if result is None:
                return None
            record = self._take_in(result)
            self.recorder.emit(record)
            self._after_record(record)
        self.faults.after_validation(self.progress, result.free_running.get("alignment"), result.losses["mel_post"])
        return record

    def _validate_on_first(self) -> Validated | None:
        """Its result in every process, the samples in the first alone."""
        found = None
        if self.group.is_first:
            with self.train_step.with_speaking_weights():
                found = self.faults.skip_if_out_of_memory(
                    lambda: self.validator.run(with_heartbeat=self.group.with_heartbeat), step=self.progress.step
                )
        shared = self.group.broadcast(None if found is None else replace(found, samples=()))
        return found if self.group.is_first else shared

    def _take_in(self, result: Validated) -> EvalRecord:
        """Moves the counters of the best score and of early stopping."""
        alignment = result.free_running.get("alignment", 0.0)
        is_best = isfinite(result.score) and self.progress.update_best(result.score, alignment, self.hp)
        return EvalRecord(
            step=self.progress.step,
            epoch=self.epoch_now,
            losses=result.losses,
            free_running=result.free_running,
            score=result.score,
            is_best=is_best,
            duration_s=result.duration_s,
            samples=result.samples,
        )

    def _after_record(self, record: EvalRecord) -> None:
        """The alert on a weak alignment, and the cut of the learning rate on a plateau."""
        hp, step, alignment = self.hp, record.step, record.free_running.get("alignment", 0.0)
        is_late = step > hp.guide_loss_decay_start
        if hp.validation_attention_analysis and is_late and alignment < hp.alignment_diagonal_threshold:
            message = (
                f"free-running alignment is {alignment:.2f}, under alignment_diagonal_threshold="
                f"{hp.alignment_diagonal_threshold}, after the alignment phase; see alignments/"
            )
            self.recorder.emit(Event(step, "alignment_alert", message, {"alignment": alignment}))
        if self.progress.plateau_reached(record.score, hp):
            message = f"no better score for {hp.learning_rate_decay_patience} steps"
            self.recorder.emit(Event(step, "learning_rate_cut", message, {"scale": self.progress.learning_rate_scale}))

    # -- state ------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Begins to write a checkpoint of this step, after the one before is written.

        A full disk or a failing one is an event, not the end of the run. Of several processes the first writes, with
        what only the others know.
        """
        self._read_pending_steps()
        began, progress = time.perf_counter(), self.progress
        with self.statistics.paused():
            self.collect_saved_checkpoint(wait=True)
            try:
                self.faults.check(progress.step)
            except Diverged as diverged:
                self.recorder.emit(Event(progress.step, "not_saved", f"{diverged}; the last good checkpoint stays"))
                raise
            state = self._state_of_all()
            if self.group.is_first:
                is_best = progress.best_step == progress.step
                self.saving.start(state, is_best=is_best, keep_last=self.faults.keep_checkpoints, began=began)

    def collect_saved_checkpoint(self, *, wait: bool = False) -> None:
        """Reports what became of the last save, if that is known by now; with `wait`, when it is."""
        step = self.saving.collect(wait=wait)
        if step is not None:
            self.faults.saved(step)

    def _state_of_all(self) -> Checkpoint:
        """`state` with the random states of all processes, which call this together."""
        return self.state(self.group.all_gather(self.group.random_state())[1:])

    def state(self, other_random_states: Sequence[Mapping[str, Any]] = ()) -> Checkpoint:
        training = {
            **self.train_step.state(),
            "progress": asdict(self.progress),
            "recovery": self.faults.state(),
            **self.group.random_state(),
            "other_processes": [dict(state) for state in other_random_states],
            "corpus": self.corpus.fingerprint,
        }
        weights = {name: t.detach().cpu() for name, t in self.train_step.speaking_weights().items()}
        return Checkpoint(self.progress.step, weights, voice_info_of(self.hp, self.corpus, r=self.model.r), training)

    def restore(self, saved: Checkpoint) -> None:
        """Goes on exactly where the checkpoint was taken."""
        self.train_step.restore(saved)
        assert saved.training is not None
        self.progress = progress = Progress.of(saved.training["progress"])
        self.model.r = self.reduction.at(progress.step)
        by_rank = [saved.training, *saved.training.get("other_processes", ())]
        self.group.restore_random_state(by_rank, seed=self.hp.seed, step=saved.step)
        # with another number of processes than saved it, a batch is larger or smaller: the position is rounded down
        progress.batch_in_epoch = progress.batch_in_epoch * len(by_rank) // self.group.size
        self.faults.restore(saved, progress, corpus=self.corpus.fingerprint)
        self.saving.restored(progress.step)
        self.recorder.rewind(progress.step)
