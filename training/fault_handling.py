"""Carries out what the recovery ladder decides: events, rollbacks, smaller micro-batches, the diagnosis of a run's end.

`recovery.json` in the run directory lists the rollbacks. A checkpoint knows how many of them it has seen; whoever goes
on from it takes over the later ones (the data to pass over, the cut of the rate). So a resumed run and one that was
killed in the middle of a rollback go the same way, and the count of vain attempts survives any restart.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch

from checkpointing import checkpoint_file
from checkpointing import directory as checkpoint_dir
from checkpointing.background_writer import snapshot
from checkpointing.checkpoint_file import Checkpoint
from common.errors import GaveUp, first_line, is_out_of_memory
from common.files import write_atomic
from common.log import LOG
from config.hparams_diff import differences
from corpus.batch import Batch
from hparams import HParams, hparams_hash
from parallel.process_group import SINGLE_PROCESS, ProcessGroup
from recovery.advice import causes_and_advice
from recovery.ladder import ROLLBACK_RATE, Decision, Fault, Position, RecoveryPolicy, RecoveryState
from run_directory.reader import read_mapping
from run_directory.records import Event
from training.progress import Progress
from training.train_step import StepOutcome, StepResult, TrainStep

T = TypeVar("T")
JOURNAL, DIAGNOSIS = "recovery.json", "diagnosis.json"
SUSPECTS = 50  # utterances that a diagnosis names
KEPT_IN_DOUBT = 5  # checkpoints more than usual, while steps are bad


class Diverged(Exception):
    """Training can't go on from the weights as they are."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


class FaultRecovery:
    """One run's policy, its journal, and the way back."""

    def __init__(
        self,
        hp: HParams,
        train_step: TrainStep,
        *,
        directory: Path,
        corpus: str,
        emit: Callable[[Event], None],
        group: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        """corpus: the fingerprint of the data. Of several processes the first decides and writes, for all."""
        self.hp, self.train_step, self.directory, self.emit, self.group = hp, train_step, directory, emit, group
        self.policy = RecoveryPolicy(hp)
        self.corpus, self.settings = corpus, f"{hparams_hash(hp)}-{corpus[:8]}"
        self.journal = read_mapping(directory / JOURNAL, [])  # a damaged one: the count begins anew
        self._beginning: Checkpoint | None = None  # of this launch, while there is no checkpoint to go back to
        self._suspects: dict[str, None] = {}  # utterances of the latest bad steps, in order

    @property
    def rollbacks(self) -> list[dict[str, Any]]:
        return self.journal.setdefault("rollbacks", [])

    @property
    def attempts(self) -> int:
        """Rollbacks since the last checkpoint that was written beyond a failure."""
        return len(self.rollbacks) - int(self.journal.get("cleared", 0))

    def _write_journal(self, **changes: Any) -> None:
        self.journal |= changes
        self._write(JOURNAL, self.journal)

    def _write(self, name: str, content: Mapping[str, Any]) -> None:
        try:
            write_atomic(self.directory / name, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        except OSError as error:  # a full disk: a kill before the next write would forget this one, nothing more
            LOG.warning("%s was not written: %s", self.directory / name, error)

    # -- the beginning ----------------------------------------------------------------------------------------

    def begin(self, progress: Progress, state: Callable[[], Checkpoint]) -> None:
        """Before the first step of a launch. GaveUp where this run gave up with the very same settings and data."""
        is_new, self.journal = self.group.run_on_rank0(lambda: self._begin(progress))
        self.apply_new_rollbacks(progress)
        if is_new:
            beginning = state()
            self._beginning = snapshot(beginning) if self.group.is_first else None

    def _begin(self, progress: Progress) -> tuple[bool, dict[str, Any]]:
        """-> whether there is no checkpoint yet; the journal"""
        old = read_mapping(self.directory / DIAGNOSIS, [])
        if old and old.get("settings") == self.settings:
            self.emit(Event(progress.step, "gave_up", old["message"], old))
            raise GaveUp(f"{format_diagnosis(old)}\n{self._what_next()}")
        if old:
            (self.directory / DIAGNOSIS).unlink()
            if self.rollbacks:
                self._write_journal(cleared=len(self.rollbacks))
        return not checkpoint_dir.all_checkpoints(self.directory / "checkpoints"), self.journal

    def apply_new_rollbacks(self, progress: Progress) -> None:
        """What a checkpoint, or the beginning of a run, doesn't know of yet."""
        for entry in self.rollbacks:
            if entry["number"] > progress.rollbacks:
                progress.rollbacks = entry["number"]
                progress.rollback_scale *= entry["rate"]
                if entry["data"]:
                    first, end = entry["data"]
                    progress.skipped_ranges.append((tuple(first), tuple(end)))
        progress.splits = max(progress.splits, int(self.journal.get("splits", 1)))

    def state(self) -> dict[str, Any]:
        """For the checkpoint."""
        return asdict(self.policy.state)

    def restore(self, saved: Checkpoint, progress: Progress) -> None:
        """progress: the checkpoint's, which learns of later rollbacks here."""
        assert saved.training is not None
        self.journal = self.group.broadcast(self.journal)
        self.policy.state = RecoveryState.of(saved.training.get("recovery", {}))
        has_changed = any(differences(self.hp, saved.voice.hparams).values())
        if has_changed or saved.training["corpus"] != self.corpus:
            self.policy.new_phase()  # losses may well be of another size now
        self.apply_new_rollbacks(progress)

    # -- one step ---------------------------------------------------------------------------------------------

    def run(self, micro_batches: Sequence[Batch], progress: Progress, *, step: int) -> StepResult:
        """A step, in as many parts as memory needs."""

        def attempt(parts: Sequence[Batch]) -> StepResult:
            return self.train_step.run(
                parts,
                step=step,
                rate_scale=progress.learning_rate_scale,
                limits=self.policy.limits,
                rate_factor=progress.rollback_scale * self.policy.rate_factor,
                clip_factor=self.policy.clip_factor,
            )

        return self._run_within_memory(attempt, micro_batches, progress, step)

    def rehearse(self, longest: Batch, progress: Progress) -> None:
        """So that memory ends in the first minute, if it must, and not when this batch has its turn."""
        step = progress.step
        self._run_within_memory(lambda parts: self.train_step.rehearse(parts, step=step), [longest], progress, step)

    def _run_within_memory(
        self, attempt: Callable[[Sequence[Batch]], T], micro_batches: Sequence[Batch], progress: Progress, step: int
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
        largest = max(map(len, parts))
        if largest == 1:
            names = [name for part in parts for name in part.utterance_ids]
            fault = Fault("out_of_memory", f"memory does not suffice for a single utterance: {reason}")
            raise self.gave_up(fault, step=step, utterances=names)
        progress.splits *= 2
        self._write_journal(splits=progress.splits)
        message = (
            f"{reason} - each batch is now taken in {progress.splits} parts, which add up to the same gradient. "
            "Faster: fp16_run=True, which lowers memory, a smaller batch_size, or max_batch_frames"
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

    def after_step(self, done: StepOutcome, micro_batches: Sequence[Batch], *, step: int, at: Position) -> None:
        """Tells what was wrong, if anything was. Diverged if the run must go back."""
        if done.fault is None:
            if done.is_taken:
                self._follow(step, self.policy.after_step(step, None, loss=done.loss, norm=done.norm, at=at))
            return
        broken = self._of_all(broken_utterances(micro_batches))
        names = broken or self._of_all([n for batch in micro_batches if batch.counts for n in batch.utterance_ids])
        why = f"; values that are not finite are in the mel of {', '.join(broken)}" if broken else ""
        message = f"{done.fault.message}{why}; the step was not taken"
        self.emit(Event(step, "skipped", message, {"reason": done.fault.kind, "utterances": names}))
        self._suspects |= dict.fromkeys(names)
        if not broken and done.fault.kind == "not_finite":
            self.check(step)
        decision = self.policy.after_step(
            step, done.fault, loss=done.loss, norm=done.norm, at=at, is_data_bad=bool(broken)
        )
        self._follow(step, decision)

    def _of_all(self, names: list[str]) -> list[str]:
        return [name for part in self.group.all_gather(names) for name in part]

    def after_validation(self, progress: Progress, alignment: float | None, loss: float) -> None:
        """alignment: of free-running speech, where that is measured. Diverged if the run must go back.

        Called by the process that validates, alone.
        """
        if not loss < float("inf"):
            _refuse(self.train_step.find_non_finite_state(), progress.step)
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
        _refuse(next(filter(None, self.group.all_gather(self.train_step.find_non_finite_state())), None), step)

    @property
    def keep_checkpoints(self) -> int:
        """How many, so that what lies before the first bad step is not pruned."""
        return self.hp.keep_checkpoints + (KEPT_IN_DOUBT if self.is_in_doubt else 0)

    @property
    def is_in_doubt(self) -> bool:
        """Whether something has begun that may end in a rollback."""
        state = self.policy.state
        return state.first_bad_step >= 0 or state.vanished_steps > 0 or state.unaligned_validations > 0

    # -- the way back -----------------------------------------------------------------------------------------

    def saved(self, step: int) -> None:
        """A checkpoint of this step has been written and verified."""
        if not self.is_in_doubt:
            self._beginning = None
        if self.attempts and step > max(entry["step"] for entry in self.rollbacks):
            self._write_journal(cleared=len(self.rollbacks))
            self._suspects.clear()

    def roll_back(self, fault: Fault, progress: Progress) -> Checkpoint:
        """The checkpoint to go on from, after all is written down. GaveUp where the policy ends."""
        target, self.journal = self.group.run_on_rank0(lambda: (self._roll_back(fault, progress), self.journal))
        return target

    def _roll_back(self, fault: Fault, progress: Progress) -> Checkpoint:
        directory = self.directory / "checkpoints"
        first_bad = checkpoint_dir.checkpoint_path(directory, fault.onset)
        earlier = [path for path in checkpoint_dir.all_checkpoints(directory) if path < first_bad]
        good = [path for path in earlier if checkpoint_dir.status_of(path).problem is None]
        reason = self._reason_to_give_up(fault, has_way_back=bool(good) or self._beginning is not None)
        if reason:
            raise self.gave_up(fault, step=progress.step, last_good=good, reason=reason)
        if good:
            target = checkpoint_file.load(good[min(self.attempts, len(good) - 1)])  # in vain before: further back
        else:
            assert self._beginning is not None
            target = snapshot(self._beginning)
        # bits that flipped once leave data and rate without guilt: the same way again, and only then around it
        is_innocent = fault.kind == "damaged" and self.attempts == 0
        stretch = None if is_innocent else self._stretch(fault, progress, target)
        rate = 1.0 if is_innocent else ROLLBACK_RATE
        number = max([progress.rollbacks, *(entry["number"] for entry in self.rollbacks)]) + 1
        entry = {"number": number, "step": progress.step, "to": target.step, "data": stretch, "rate": rate}
        self._write_journal(rollbacks=[*self.rollbacks, {**entry, "kind": fault.kind}])
        self._set_aside(directory, target)
        self.emit(Event(progress.step, "rollback", self._words(fault, entry), {**entry, "reason": fault.kind}))
        return target

    def _reason_to_give_up(self, fault: Fault, *, has_way_back: bool) -> str:
        if fault.kind == "bad_data":
            return "going back does not mend recordings"
        if not self.hp.emergency_restart_enabled:
            return "emergency_restart_enabled=False"
        if self.attempts >= self.hp.max_restart_attempts:
            return f"went back {self.attempts} times without getting beyond it (max_restart_attempts)"
        return "" if has_way_back else f"there is no good checkpoint from before step {fault.onset}"

    def _stretch(self, fault: Fault, progress: Progress, target: Checkpoint) -> tuple[Position, Position] | None:
        """The data from the first bad step to here; where that is unknown, from the checkpoint on."""
        assert target.training is not None
        then = target.training["progress"]
        first = fault.position or (then["epoch"], then["batch_in_epoch"])
        return (tuple(first), progress.position) if tuple(first) < progress.position else None

    def _words(self, fault: Fault, entry: Mapping[str, Any]) -> str:
        what = f"{fault.message}: back to step {entry['to']}"
        data = entry["data"]
        if data:
            (epoch, batch), (end_epoch, end_batch) = data
            what += f", past the data from epoch {epoch} batch {batch} to epoch {end_epoch} batch {end_batch}"
        if entry["rate"] != 1.0:
            what += f", with the learning rate x {entry['rate']:g}"
        return f"{what} (rollback {self.attempts} of {self.hp.max_restart_attempts})"

    def _set_aside(self, directory: Path, target: Checkpoint) -> None:
        """Checkpoints of the steps that are given up: whoever resumes must not find them the newest."""
        assert target.training is not None
        own = checkpoint_dir.checkpoint_path(directory, target.step)
        for path in checkpoint_dir.all_checkpoints(directory):
            if path > own:
                LOG.info("%s was moved to %s", path, checkpoint_dir.quarantine(path))
        progress = target.training["progress"]
        best = checkpoint_dir.checkpoint_path(directory, progress["best_step"])
        try:
            if own.exists():
                checkpoint_dir.point(directory, "last", own)
            if best.exists() and checkpoint_dir.pointed(directory, "best") is None:
                checkpoint_dir.point(directory, "best", best, score=progress["best_score"])
        except OSError as error:  # resuming goes by the files themselves
            LOG.warning("the pointers in %s were not written: %s", directory, error)

    # -- the end ----------------------------------------------------------------------------------------------

    def gave_up(
        self,
        fault: Fault,
        *,
        step: int,
        last_good: Sequence[Path] = (),
        utterances: Sequence[str] = (),
        reason: str = "",
    ) -> GaveUp:
        """Writes and tells the diagnosis. -> what to raise"""
        good = last_good or [
            p
            for p in checkpoint_dir.all_checkpoints(self.directory / "checkpoints")
            if not checkpoint_file.problem_of(p)
        ]
        causes, advice = causes_and_advice(fault.kind, is_half=self.train_step.precision.dtype is not None)
        content: dict[str, Any] = {
            "step": step,
            "kind": fault.kind,
            "message": f"{fault.message}; gave up: {reason}" if reason else fault.message,
            "utterances": list(utterances or self._suspects)[-SUSPECTS:],
            "last_good": str(good[0]) if good else None,
            "causes": causes,
            "advice": advice,
            "time": round(time.time(), 3),
        }
        if self.attempts and self.attempts >= self.hp.max_restart_attempts:
            content["settings"] = self.settings  # whoever starts the same again is told at once
        self._write(DIAGNOSIS, content)
        self.emit(Event(step, "gave_up", content["message"], content))
        return GaveUp(f"{format_diagnosis(content)}\n{self._what_next()}")

    def _what_next(self) -> str:
        return (
            f"go on:       with other settings or data by the same command; as it is after deleting "
            f"{self.directory / DIAGNOSIS}; python emergency_recovery.py {self.directory} tells more"
        )


def _refuse(damage: str | None, step: int) -> None:
    if damage is not None:
        raise Diverged(Fault("damaged", f"{damage} holds values that are not finite", onset=step))


def broken_utterances(batches: Sequence[Batch]) -> list[str]:
    """Whose mels hold values that are not finite."""
    return [
        name
        for batch in batches
        for name, is_whole in zip(batch.utterance_ids, torch.isfinite(batch.mel).all(2).all(1).tolist(), strict=True)
        if not is_whole
    ]


def format_diagnosis(diagnosis: Mapping[str, Any]) -> str:
    """A diagnosis for a person."""
    lines = [f"training stopped at step {diagnosis['step']}: {diagnosis['message']}"]
    lines += [f"likely:      {cause}" for cause in diagnosis["causes"]]
    lines += [f"advice:      {text}" for text in diagnosis["advice"]]
    if diagnosis["utterances"]:
        lines.append(f"utterances:  {', '.join(diagnosis['utterances'])}")
    lines.append(f"last good:   {diagnosis['last_good'] or 'no checkpoint'}")
    return "\n".join(lines)
