"""The way back to an earlier checkpoint, and the end where nothing helps.

`recovery.json` in the run directory lists the rollbacks. A checkpoint knows how many of them it has seen; whoever goes
on from it applies the later ones (the data to skip, the cut of the rate). So a resumed run and one that was killed in
the middle of a rollback go the same way, and the count of vain attempts survives any restart.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from checkpointing import checkpoint_file
from checkpointing import directory as checkpoint_dir
from checkpointing.background_writer import snapshot
from checkpointing.checkpoint_file import Checkpoint
from common.errors import GaveUp
from common.files import write_atomic
from common.log import LOG
from hparams import HParams
from parallel.process_group import SINGLE_PROCESS, ProcessGroup
from recovery.advice import causes_and_advice
from recovery.diagnosis import diagnosis_of_end, format_diagnosis
from recovery.ladder import ROLLBACK_RATE, Fault, Position
from run_directory.reader import read_mapping
from run_directory.records import Event
from run_directory.settings_digest import hparams_hash
from training.progress import Progress

JOURNAL, DIAGNOSIS = "recovery.json", "diagnosis.json"
SUSPECTS = 50  # utterances that a diagnosis names


def write_or_warn(path: Path, content: Mapping[str, Any]) -> None:
    try:
        write_atomic(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    except OSError as error:  # a full disk: a kill before the next write would forget this one, nothing more
        LOG.warning("%s was not written: %s", path, error)


class Journal:
    """`recovery.json`: a run's rollbacks, which of them were in vain, and into how many parts memory splits a batch."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / JOURNAL
        self.content = read_mapping(self.path, [])  # a damaged one: the count begins anew

    @property
    def rollbacks(self) -> list[dict[str, Any]]:
        return self.content.setdefault("rollbacks", [])

    @property
    def attempts(self) -> int:
        """Rollbacks since the last checkpoint that was written beyond a failure."""
        return len(self.rollbacks) - int(self.content.get("cleared", 0))

    def write(self, **changes: Any) -> None:
        self.content |= changes
        write_or_warn(self.path, self.content)

    def clear(self) -> None:
        """The rollbacks so far have helped."""
        self.write(cleared=len(self.rollbacks))

    def apply_new(self, progress: Progress) -> None:
        """What a checkpoint, or the beginning of a run, doesn't know of yet."""
        for entry in self.rollbacks:
            if entry["number"] > progress.rollbacks:
                progress.rollbacks = entry["number"]
                progress.rollback_scale *= entry["rate"]
                if entry["data"]:
                    first, end = entry["data"]
                    progress.skipped_ranges.append((tuple(first), tuple(end)))
        progress.splits = max(progress.splits, int(self.content.get("splits", 1)))


class Rollback:
    """Goes back to an earlier checkpoint, or gives up. Of several processes the first decides and writes, for all."""

    def __init__(
        self,
        hp: HParams,
        *,
        directory: Path,
        corpus: str,
        is_half: bool,
        emit: Callable[[Event], None],
        group: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        """corpus: the fingerprint of the data; is_half: whether the run computes in half precision."""
        self.hp, self.directory, self.is_half, self.emit, self.group = hp, directory, is_half, emit, group
        self.settings = f"{hparams_hash(hp)}-{corpus[:8]}"
        self.journal = Journal(directory)
        self._beginning: Checkpoint | None = None  # of this launch, while there is no checkpoint to go back to
        self._suspects: dict[str, None] = {}  # utterances of the latest bad steps, in order

    @property
    def _checkpoints(self) -> Path:
        return self.directory / "checkpoints"

    def begin(self, progress: Progress, state: Callable[[], Checkpoint]) -> None:
        """Before the first step of a launch. GaveUp where this run gave up with the very same settings and data."""
        is_new, self.journal.content = self.group.run_on_rank0(lambda: (self._begin(progress), self.journal.content))
        self.journal.apply_new(progress)
        if is_new:
            beginning = state()
            self._beginning = snapshot(beginning) if self.group.is_first else None

    def _begin(self, progress: Progress) -> bool:
        """-> whether there is no checkpoint yet"""
        old = read_mapping(self.directory / DIAGNOSIS, [])
        if old and old.get("settings") == self.settings:
            self.emit(Event(progress.step, "gave_up", old["message"], old))
            raise self._gave_up(old)
        if old:
            (self.directory / DIAGNOSIS).unlink()
            if self.journal.rollbacks:
                self.journal.clear()
        return not checkpoint_dir.all_checkpoints(self._checkpoints)

    def restore(self, progress: Progress) -> None:
        """progress: a checkpoint's, which learns of later rollbacks here."""
        self.journal.content = self.group.broadcast(self.journal.content)
        self.journal.apply_new(progress)

    def suspect(self, utterances: Sequence[str]) -> None:
        """Utterances of a bad step, for the diagnosis."""
        self._suspects |= dict.fromkeys(utterances)

    def saved(self, step: int, *, is_in_doubt: bool) -> None:
        """A checkpoint of this step has been written. is_in_doubt: it may lie behind what leads to a rollback."""
        if not is_in_doubt:
            self._beginning = None
        if self.journal.attempts and step > max(entry["step"] for entry in self.journal.rollbacks):
            self.journal.clear()
            self._suspects.clear()

    # -- the way back -----------------------------------------------------------------------------------------

    def roll_back(self, fault: Fault, progress: Progress) -> Checkpoint:
        """The checkpoint to go on from, after all is written down. GaveUp where there is none, or none will help."""
        target, self.journal.content = self.group.run_on_rank0(
            lambda: (self._roll_back(fault, progress), self.journal.content)
        )
        return target

    def _roll_back(self, fault: Fault, progress: Progress) -> Checkpoint:
        good = self._good_before(fault.onset)
        reason = self._reason_to_give_up(fault, has_way_back=bool(good) or self._beginning is not None)
        if reason:
            raise self.gave_up(fault, step=progress.step, last_good=good, reason=reason)
        if good:
            # in vain before: further back
            target = checkpoint_file.load(good[min(self.journal.attempts, len(good) - 1)])
        else:
            assert self._beginning is not None
            target = snapshot(self._beginning)
        entry = self._entry(fault, progress, target)
        self.journal.write(rollbacks=[*self.journal.rollbacks, {**entry, "kind": fault.kind}])
        self._set_aside_later(target)
        self.emit(Event(progress.step, "rollback", self._message(fault, entry), {**entry, "reason": fault.kind}))
        return target

    def _good_before(self, step: int) -> list[Path]:
        """Whole checkpoints of earlier steps, newest first."""
        first_bad = checkpoint_dir.checkpoint_path(self._checkpoints, step)
        earlier = [path for path in checkpoint_dir.all_checkpoints(self._checkpoints) if path < first_bad]
        return [path for path in earlier if checkpoint_dir.status_of(path).problem is None]

    def _reason_to_give_up(self, fault: Fault, *, has_way_back: bool) -> str:
        if fault.kind == "bad_data":
            return "going back does not mend recordings"
        if not self.hp.emergency_restart_enabled:
            return "emergency_restart_enabled=False"
        if self.journal.attempts >= self.hp.max_restart_attempts:
            return f"went back {self.journal.attempts} times without getting beyond it (max_restart_attempts)"
        return "" if has_way_back else f"there is no good checkpoint from before step {fault.onset}"

    def _entry(self, fault: Fault, progress: Progress, target: Checkpoint) -> dict[str, Any]:
        """Of the journal: from where to where, the data to skip, and the cut of the rate."""
        # bits that flipped once leave data and rate without guilt: the same way again, and only then around it
        is_innocent = fault.kind == "damaged" and self.journal.attempts == 0
        number = max([progress.rollbacks, *(entry["number"] for entry in self.journal.rollbacks)]) + 1
        return {
            "number": number,
            "step": progress.step,
            "to": target.step,
            "data": None if is_innocent else _range_to_skip(fault, progress, target),
            "rate": 1.0 if is_innocent else ROLLBACK_RATE,
        }

    def _message(self, fault: Fault, entry: Mapping[str, Any]) -> str:
        what = f"{fault.message}: back to step {entry['to']}"
        data = entry["data"]
        if data:
            (epoch, batch), (end_epoch, end_batch) = data
            what += f", past the data from epoch {epoch} batch {batch} to epoch {end_epoch} batch {end_batch}"
        if entry["rate"] != 1.0:
            what += f", with the learning rate x {entry['rate']:g}"
        return f"{what} (rollback {self.journal.attempts} of {self.hp.max_restart_attempts})"

    def _set_aside_later(self, target: Checkpoint) -> None:
        """Checkpoints of the steps that are given up: whoever resumes must not find them the newest."""
        assert target.training is not None
        directory = self._checkpoints
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
                checkpoint_dir.point(directory, "best", best)
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
        """Writes and reports the diagnosis. -> what to raise"""
        whole = (p for p in checkpoint_dir.all_checkpoints(self._checkpoints) if not checkpoint_file.problem_of(p))
        newest = last_good[0] if last_good else next(whole, None)
        causes, advice = causes_and_advice(fault.kind, is_half=self.is_half)
        content: dict[str, Any] = {
            "step": step,
            "kind": fault.kind,
            "message": f"{fault.message}; gave up: {reason}" if reason else fault.message,
            "utterances": list(utterances or self._suspects)[-SUSPECTS:],
            "last_good": str(newest) if newest else None,
            "causes": causes,
            "advice": advice,
            "time": round(time.time(), 3),
        }
        if self.journal.attempts and self.journal.attempts >= self.hp.max_restart_attempts:
            content["settings"] = self.settings  # whoever starts the same again is told at once
        write_or_warn(self.directory / DIAGNOSIS, content)
        self.emit(Event(step, "gave_up", content["message"], content))
        return self._gave_up(content)

    def _gave_up(self, content: Mapping[str, Any]) -> GaveUp:
        """content: of diagnosis.json"""
        what_next = (
            f"go on:       with other settings or data by the same command; as it is after deleting "
            f"{self.directory / DIAGNOSIS}; `python emergency_recovery.py {self.directory}` tells more"
        )
        return GaveUp(f"{format_diagnosis(diagnosis_of_end(self.directory, content))}\n{what_next}")


def _range_to_skip(fault: Fault, progress: Progress, target: Checkpoint) -> tuple[Position, Position] | None:
    """The data from the first bad step to here; where that is unknown, from the checkpoint on."""
    assert target.training is not None
    then = target.training["progress"]
    first = fault.position or (then["epoch"], then["batch_in_epoch"])
    return (tuple(first), progress.position) if tuple(first) < progress.position else None
