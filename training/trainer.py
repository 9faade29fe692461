"""`Trainer.fit()`: the step, the loop, when to validate, when to save, when to stop."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from itertools import islice
from math import ceil, isfinite
from pathlib import Path
from typing import Any

import torch

from checkpointing.background_writer import Saver
from checkpointing.checkpoint_file import Checkpoint
from common.signals import StopRequest
from common.step_schedule import Reduction
from corpus.batch import Batch
from corpus.loader import loader_workers, make_loader
from data_utils import Corpus, plan_batches
from hparams import HParams
from model import Tacotron2
from monitoring.observer import Observer
from parallel.process_group import ALONE, Group
from recovery.ladder import Position
from run_directory.metrics_log import RunLog
from run_directory.records import EvalRecord, Event, Record
from training.fault_handling import Diverged, Healing
from training.module_norms import module_norms
from training.progress import Progress
from training.step_statistics import Interval
from training.train_step import Stepper, StepResult
from training.validation import references_of, validate
from training.voice_info import decode_limits, voice_of

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
class Unseen:
    """A step that nobody has looked at yet. `at`: where its data begins."""

    step: int
    result: StepResult
    micro_batches: Sequence[Batch]
    at: Position


class Trainer:
    """Trains one model on one corpus into one run directory."""

    def __init__(
        self,
        hp: HParams,
        model: Tacotron2,
        corpus: Corpus,
        *,
        directory: Path,
        log: RunLog | None,
        observers: Sequence[Observer] = (),
        limits: Limits | None = None,
        device: torch.device,
        group: Group = ALONE,
    ) -> None:
        """log and observers: None and none in all processes of a group but the first, which writes and shows."""
        self.hp, self.model, self.corpus, self.device = hp, model.to(device), corpus, device
        self.directory, self.log, self.observers, self.group = directory, log, observers, group
        self.limits = limits or Limits()
        self.stepper = Stepper(hp, self.model, corpus, device, group)
        self.progress = Progress()
        self.reduction = Reduction.of(hp.reduction_schedule, hp.n_frames_per_step)
        self.interval = Interval()
        self.plan = plan_batches(corpus.train, hp, n_parts=group.size)
        self.validation_plan = plan_batches(corpus.validation, hp, is_validation=True)
        self.decode_limits = decode_limits(hp, corpus)
        self.references = references_of(corpus)
        self.saver = Saver(directory / "checkpoints", keep_last=hp.keep_checkpoints, milestone_every=hp.save_interval)
        self.healing = Healing(
            hp, self.stepper, directory=directory, corpus=corpus.fingerprint, emit=self.emit, group=group
        )
        self._step_from = self.progress.position  # where the data of the step in hand begins
        self._unseen: list[Unseen] = []
        self.look_every = self.look_interval(device)
        self._is_rehearsed = device.type != "cuda"
        self._stall_s = 0.0  # for which the last save held training up
        self._validated_at = self._saved_at = -1
        self._stopped_by: int | None = None  # the signal that any process got

    def look_interval(self, device: torch.device) -> int:
        """Steps between two looks at how they went, which wait for the device.

        On a CPU there is nothing to wait for, and the loss scale of fp16 is moved by the host.
        """
        return 1 if device.type == "cpu" or self.stepper.precision.scaler is not None else LOG_EVERY

    # -- the loop ---------------------------------------------------------------------------------------------

    def fit(self) -> Outcome:
        """Trains until a limit, early stopping, or a signal; the last step is validated and saved.

        GaveUp where training fails again and again, with the diagnosis in `diagnosis.json`.
        """
        deadline = time.monotonic() + 60 * self.limits.max_minutes if self.limits.max_minutes else None
        self.model.train()
        with StopRequest() as stop:
            reason = self._reason_to_stop(stop, deadline)
            if reason:
                return Outcome(reason, self.progress.step)
            try:
                self.healing.begin(self.progress, self._state_of_all)
                while True:
                    try:
                        reason = self._train(stop, deadline)
                        break
                    except Diverged as diverged:
                        self._roll_back(diverged)
            finally:
                self.settle(wait=True)
        return Outcome(reason, self.progress.step, self._stopped_by)

    def _train(self, stop: StopRequest, deadline: float | None) -> str:
        """Steps until there is a reason to stop. Diverged if they lead nowhere."""
        reason = self._reason_to_stop(stop, deadline)
        if not reason:
            for micro_batches, waited_s in self._batches():
                self._step(micro_batches, waited_s)
                self._after_step()
                reason = self._reason_to_stop(stop, deadline)
                if reason:
                    break
        self._finish(interrupted=self._stopped_by is not None)
        return reason or "epochs"

    def _roll_back(self, diverged: Diverged) -> None:
        self.settle(wait=True)
        self._unseen.clear()
        self._record_interval()
        self.restore(self.healing.roll_back(diverged.fault, self.progress))
        self.model.train()
        self._validated_at = -1

    def _reason_to_stop(self, stop: StopRequest, deadline: float | None) -> str | None:
        progress = self.progress
        is_late = deadline is not None and time.monotonic() >= deadline
        got_signal, is_late_anywhere = self.group.greatest(stop.signal or 0, is_late)
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

    def _batches(self) -> Iterator[tuple[list[Batch], float]]:
        """The micro-batches of each optimiser step, from where the run stands, and how long they were waited for."""
        progress, loaded = self.progress, None
        loader: Iterator[Batch] = iter(())
        while progress.epoch < self.hp.epochs:
            if progress.pass_over():
                continue
            left = self.batches_in_epoch(progress.epoch) - progress.batch_in_epoch
            if left <= 0:  # resumed with other data or batches: this epoch is shorter now, and done
                progress.epoch, progress.batch_in_epoch = progress.epoch + 1, 0
                continue
            if loaded != (progress.epoch, progress.batch_in_epoch):
                loader = iter(self._loader())
            began = time.perf_counter()
            micro_batches = list(islice(loader, min(left, self.hp.gradient_accumulation_steps)))
            waited_s = time.perf_counter() - began
            self._step_from = progress.position
            progress.batch_in_epoch += len(micro_batches)
            if len(micro_batches) == left:
                progress.epoch, progress.batch_in_epoch = progress.epoch + 1, 0
            loaded = progress.epoch, progress.batch_in_epoch
            yield micro_batches, waited_s

    def _loader(self) -> Iterable[Batch]:
        return make_loader(
            self.corpus.train,
            self.plan,
            epoch=self.progress.epoch,
            first_batch=self.progress.batch_in_epoch,
            r=self.model.r,
            num_workers=loader_workers(self.hp.num_workers),
            pin_memory=self.device.type == "cuda",
            part=self.group.rank,
            is_endless=True,
            tell=lambda message: self.emit(Event(self.progress.step, "loader_died", message)),
        )

    @lru_cache(maxsize=2)  # noqa: B019 - one trainer lives as long as its process
    def batches_in_epoch(self, epoch: int) -> int:
        return len(self.plan.epoch(epoch))

    @property
    def total_steps(self) -> int | None:
        """Where the run ends if nothing stops it early: by epochs, or by `max_steps`."""
        by_epochs = self.hp.epochs * ceil(self.batches_in_epoch(0) / self.hp.gradient_accumulation_steps)
        return min(by_epochs, self.limits.max_steps or by_epochs)

    # -- one step ---------------------------------------------------------------------------------------------

    def _step(self, micro_batches: Sequence[Batch], waited_s: float) -> None:
        """One optimiser step, and what it adds to the interval's record."""
        step = self.progress.step + 1
        self._move_r(step)
        done = self.healing.run(micro_batches, self.progress, step=step)
        self._unseen.append(Unseen(step, done, micro_batches, self._step_from))
        self.progress.step = step
        self.interval.add_data(micro_batches, waited_s)
        if step % self.look_every == 0:
            self._look()
        if not self._is_rehearsed:  # after a step, as the optimiser's state takes memory too
            self._is_rehearsed = True
            self._rehearse()

    def _look(self) -> None:
        """Reads how the last steps went, which waits for the device once, and does what follows. Diverged if need be.

        Whether each was taken has been decided on the device, by the limits of the last look.
        """
        unseen, self._unseen = self._unseen, []
        numbers = torch.stack([one.result.numbers for one in unseen]).tolist() if unseen else []
        for one, read in zip(unseen, numbers, strict=True):
            done = one.result.seen(*read)
            self.interval.add(done, one.result.losses)
            if one.result.event is not None:
                self.emit(one.result.event)
            self.healing.after_step(done, one.micro_batches, step=one.step, at=one.at)

    def _rehearse(self) -> None:
        """The largest batch, with the smallest r of all phases, which takes the most decoder steps."""
        r, self.model.r = self.model.r, min(r for _, r in self.reduction.phases)
        epoch = self.plan.epoch(self.progress.epoch)
        largest = max(range(len(epoch)), key=lambda i: len(epoch[i]) * self.plan.shape(epoch[i])[1])
        loader = make_loader(
            self.corpus.train, self.plan, epoch=self.progress.epoch, first_batch=largest, r=self.model.r
        )
        self.healing.rehearse(next(iter(loader)), self.progress)
        self.model.r = r

    def _move_r(self, step: int) -> None:
        """The r of this step. Early stopping starts to count anew where it changes."""
        self.model.r = r = self.reduction.at(step)
        if r != self.reduction.at(step - 1):
            self.progress.bad_validations = 0
            self.healing.ladder.new_phase()
            self.emit(Event(step, "reduction", f"{r} frames a decoder step from here", {"r": r}))

    # -- between steps ----------------------------------------------------------------------------------------

    def _after_step(self) -> None:
        step, hp = self.progress.step, self.hp
        self.settle()
        if step % LOG_EVERY == 0:
            self._record_interval()
        if step % hp.validate_interval == 0:
            self._validate()
        due = hp.save_interval and step % hp.save_interval == 0
        if due or step % hp.iters_per_checkpoint == 0 or self.progress.best_step == step:
            self.save()

    def _finish(self, *, interrupted: bool) -> None:
        self._record_interval()
        is_unjudged = not interrupted and self._validated_at != self.progress.step
        if is_unjudged:
            self._validate()
        is_unsaved = self.group.same(self._saved_at != self.progress.step)  # the first process knows
        if is_unjudged or is_unsaved:  # the checkpoint holds what the validation changed
            self.save()

    def _record_interval(self) -> None:
        """One record for the steps since the last one."""
        self._look()
        gathered, self.interval = self.interval, Interval()
        if gathered.n_steps == 0:
            return
        step, hp = self.progress.step, self.hp
        is_report_due = hp.debug_reporting and step % hp.debug_report_interval < LOG_EVERY
        modules = module_norms(self.model) if is_report_due else {}
        self.emit(
            gathered.record(
                step=step,
                epoch=self.epoch_now,
                learning_rate=self.stepper.rate,
                stats=self.corpus.stats,
                group=self.group,
                modules=modules,
            )
        )

    @property
    def epoch_now(self) -> float:
        return self.progress.epoch + self.progress.batch_in_epoch / max(self.batches_in_epoch(self.progress.epoch), 1)

    def _validate(self) -> None:
        """The first process judges, while the others wait; what follows from it holds for all."""
        self._look()
        began, fault = time.perf_counter(), None
        if self.group.is_first:
            try:
                self.run_validation()
            except Diverged as diverged:
                fault = diverged.fault
        else:
            self._validated_at = self.progress.step
        progress, vitals, fault = self.group.same((vars(self.progress), self.healing.ladder.vitals, fault))
        vars(self.progress).update(progress)
        self.healing.ladder.vitals = vitals
        if fault is not None:
            raise Diverged(fault)
        if not self.group.is_first:
            self.interval.began += time.perf_counter() - began

    def run_validation(self) -> EvalRecord | None:
        """Judges the model, moves plateau and early-stopping counters, tells everybody. None: for lack of memory."""
        progress, began = self.progress, time.perf_counter()
        self._validated_at = progress.step
        loader = make_loader(self.corpus.validation, self.validation_plan, epoch=0, r=self.model.r)
        limits = replace(self.decode_limits, max_frames=self.hp.max_decoder_steps * self.model.r)
        with self.stepper.with_speaking_weights():
            result = self.healing.spared(
                lambda: validate(
                    self.model, self.group.beating(loader), self.references, self.hp, self.corpus, limits, self.device
                ),
                step=progress.step,
            )
        if result is None:
            return None
        alignment = result.free_running.get("alignment", 0.0)
        is_best = isfinite(result.score) and progress.judge(result.score, alignment, self.hp)
        record = EvalRecord(
            progress.step,
            self.epoch_now,
            result.losses,
            result.free_running,
            result.score,
            is_best,
            result.duration_s,
            result.samples,
        )
        self.emit(record)
        self._alert_on_alignment(alignment)
        if progress.plateau_reached(result.score, self.hp):
            message = f"no better score for {self.hp.learning_rate_decay_patience} steps"
            self.emit(Event(progress.step, "learning_rate_cut", message, {"scale": progress.learning_rate_scale}))
        self.interval.began += time.perf_counter() - began  # the step's clock stops for validation
        self.healing.after_validation(progress, result.free_running.get("alignment"), result.losses["mel_post"])
        return record

    def _alert_on_alignment(self, alignment: float) -> None:
        hp, step = self.hp, self.progress.step
        if (
            hp.validation_attention_analysis
            and step > hp.guide_loss_decay_start
            and alignment < hp.alignment_diagonal_threshold
        ):
            message = (
                f"free-running alignment is {alignment:.2f}, under alignment_diagonal_threshold="
                f"{hp.alignment_diagonal_threshold}, after the alignment phase; see alignments/"
            )
            self.emit(Event(step, "alignment_alert", message, {"alignment": alignment}))

    def emit(self, record: Record) -> None:
        """To disk first, then to whoever watches."""
        if self.log is not None:
            self.log.write(record)
        for observer in self.observers:
            observer.on_record(record)

    # -- state ------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Begins to write a checkpoint of this step, after the one before is written.

        A full disk or a failing one is an event, not the end of the run. Of several processes the first writes, with
        what only the others know.
        """
        self._look()
        began, step = time.perf_counter(), self.progress.step
        self.settle(wait=True)
        try:
            self.healing.check(step)
        except Diverged as diverged:
            self.emit(Event(step, "not_saved", f"{diverged}; the last good checkpoint stays"))
            raise
        state = self._state_of_all()
        if self.group.is_first:
            self._start_to_save(state, began)

    def _start_to_save(self, state: Checkpoint, began: float) -> None:
        step = self.progress.step
        self.saver.keep_last = self.healing.keep_checkpoints
        is_best = self.progress.best_step == step
        self.saver.start(state, best_score=self.progress.best_score if is_best else None)
        self._saved_at = step
        self._stall_s = time.perf_counter() - began
        self.interval.began += self._stall_s

    def settle(self, *, wait: bool = False) -> None:
        """Tells what became of the last checkpoint, if that is known by now; with `wait`, when it is."""
        done = self.saver.collect(wait=wait)
        if done is None:
            return
        if done.removed:
            self.emit(Event(done.step, "milestones_removed", f"the disk is full; removed {', '.join(done.removed)}"))
        if done.path is None:
            self._saved_at = -1
            message = f"{done.problem}; older checkpoints are untouched, training goes on"
            self.emit(Event(done.step, "save_failed", message))
        else:
            seconds = {"seconds": round(done.seconds, 3), "stall": round(self._stall_s, 3)}
            self.emit(Event(done.step, "saved", done.path.name, seconds))
            self.healing.saved(done.step)

    def _state_of_all(self) -> Checkpoint:
        """`state` with the random states of all processes, which call this together."""
        return self.state(self.group.gathered(self.group.random_state())[1:])

    def state(self, other_random_states: Sequence[Mapping[str, Any]] = ()) -> Checkpoint:
        training = {
            **self.stepper.state(),
            "progress": asdict(self.progress),
            "recovery": self.healing.state(),
            **self.group.random_state(),
            "other_processes": [dict(state) for state in other_random_states],
            "corpus": self.corpus.fingerprint,
        }
        weights = {name: t.detach().cpu() for name, t in self.stepper.speaking_weights().items()}
        return Checkpoint(self.progress.step, weights, voice_of(self.hp, self.corpus, r=self.model.r), training)

    def restore(self, saved: Checkpoint) -> None:
        """Goes on exactly where the checkpoint was taken."""
        self.stepper.restore(saved)
        assert saved.training is not None
        self.progress = Progress(**saved.training["progress"])
        self.model.r = self.reduction.at(self.progress.step)
        by_rank = [saved.training, *saved.training.get("other_processes", ())]
        self.group.restore_random_state(by_rank, seed=self.hp.seed, step=saved.step)
        # with another number of processes than saved it, a batch is larger or smaller: the position is rounded down
        self.progress.batch_in_epoch = self.progress.batch_in_epoch * len(by_rank) // self.group.size
        self.healing.restore(saved, self.progress)
        self._saved_at = self.progress.step
        if self.log is not None:
            self.log.rewind(self.progress.step)
