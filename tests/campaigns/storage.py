"""What is on disk: resumes at every step, damaged checkpoints, full disks, foreign code."""

import os
import random
import resource
import subprocess
import sys
from pathlib import Path

import torch

from campaigns.table import Place, Row
from checkpointing import checkpoint_file
from checkpointing import directory as checkpoint_dir
from support.paths import REPOSITORY
from support.runs import assert_same, resumed, trained, trainer_of
from training.trainer import Limits

DAMAGES, FULL_DISKS = 1000, 20

ENTRIES = (
    "train.py -o {out} -l {out} -c {evil} --preset demo --max-steps 1",
    "train.py -o {out} -l {out} -c {evil} --warm-start --preset demo --max-steps 1",
    "synthesize.py -c {evil} Hello -o {out}.wav",
    "evaluate.py -c {evil}",
    "emergency_recovery.py {run}",
    "emergency_recovery.py {run} --checkpoint {evil} --export-weights",
)


def resumes(place: Place, chance: random.Random) -> Row:
    """At every step of two epochs, in the middle of accumulation's rhythm too."""
    wrong, tried = 0, 0
    for settings in ("", "batch_size=1,gradient_accumulation_steps=2", "validate_interval=2,use_mmi=True"):
        hp, n = place.hparams(settings), 8
        straight = trained(hp, place.folder / f"straight{tried}", n)
        for k in range(1, 7):
            directory = place.folder / f"cut{tried}"
            first = trainer_of(hp, directory, limits=Limits(max_steps=n))
            first.interrupt_at = k
            first.fit()
            second = resumed(hp, directory, n)
            tried += 1
            try:
                assert first.seen + second.seen == straight.seen
                assert_same(straight.state().model, second.state().model)
                assert_same(straight.state().training, second.state().training)
            except AssertionError:
                wrong += 1
    outcome = f"{tried} cuts, weights, optimiser, progress or utterance order different in {wrong}"
    return Row("interrupted at every step of two epochs", outcome, wrong == 0)


def damages(place: Place, chance: random.Random) -> Row:
    """Bit flips and truncations anywhere in a checkpoint."""
    directory = place.folder / "damaged"
    path = checkpoint_dir.checkpoint_path(directory / "checkpoints", 1)
    trained(place.hparams(), directory, 1)
    whole, missed, n = path.read_bytes(), 0, place.times(DAMAGES)
    for i in range(n):
        position = chance.randrange(len(whole))
        if i % 2:
            path.write_bytes(whole[:position])
        else:
            flipped = bytes([whole[position] ^ 1 << chance.randrange(8)])
            path.write_bytes(whole[:position] + flipped + whole[position + 1 :])
        missed += checkpoint_file.problem_of(path) is None
    return Row("random truncations and bit flips", f"{n} damaged, {n - missed} detected", missed == 0)


def full_disks(place: Place, chance: random.Random) -> Row:
    """No file may grow beyond so many bytes while a checkpoint is written."""
    trained(place.hparams(), place.folder / "measured", 1)
    size = checkpoint_dir.checkpoint_path(place.folder / "measured" / "checkpoints", 1).stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    survived, verified, n = 0, 0, place.times(FULL_DISKS)
    for i in range(n):
        directory = place.folder / f"full{i}"
        trainer = trainer_of(place.hparams("iters_per_checkpoint=2"), directory, limits=Limits(max_steps=6))
        room = size * i // n

        def limit(t: object, trainer: object = trainer, room: int = room) -> None:
            trainer.collect_saved_checkpoint(wait=True)  # type: ignore[attr-defined]
            is_full = trainer.progress.step in (3, 4)  # type: ignore[attr-defined]
            resource.setrlimit(resource.RLIMIT_FSIZE, (room if is_full else soft, hard))

        trainer.on_step = limit
        try:
            survived += trainer.fit().step == 6
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        verified += all(
            checkpoint_dir.status_of(path).problem is None
            for path in checkpoint_dir.all_checkpoints(directory / "checkpoints")
        )
        trainer.recorder.close()
    outcome = f"{n} full disks, training went on in {survived}, all checkpoints left verify in {verified}"
    return Row("disk full at different byte counts", outcome, survived == verified == n)


class Malicious:
    """Unpickling it makes a folder: what foreign code would do is the same to us as anything else."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.folder),)


def foreign_code(place: Place, chance: random.Random) -> Row:
    """A checkpoint that would run code, offered wherever a checkpoint is read."""
    run, executed = place.folder / "evil", place.folder / "executed"
    (run / "checkpoints").mkdir(parents=True)
    (run / "run.json").write_text("{}")
    evil = run / "checkpoints" / "step_00000001.pt"
    torch.save({"format": 1, "model": Malicious(executed)}, evil)
    refused = 0
    for entry in ENTRIES:
        words = entry.format(out=place.folder / "x", evil=evil, run=run).split()
        done = subprocess.run([sys.executable, str(REPOSITORY / words[0]), *words[1:]], capture_output=True, text=True)
        said = done.stdout + done.stderr
        refused += done.returncode != 0 and "could run foreign code" in said and "Traceback" not in said
    outcome = f"{len(ENTRIES)} entry points, refused by {refused}, executed {int(executed.exists())} times"
    return Row("a checkpoint with foreign code", outcome, refused == len(ENTRIES) and not executed.exists())
