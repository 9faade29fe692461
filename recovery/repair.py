"""What can be saved of a run that is down: which checkpoints are whole, its pointers, and how it goes on."""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any

import torch
import yaml

from checkpointing import checkpoint_file
from checkpointing import directory as checkpoint_dir
from common.errors import NothingToRecover, UserError
from common.files import write_atomic
from hparams import create_hparams
from recovery.diagnosis import Diagnosis
from run_directory.reader import number, read_run

HERE = Path(__file__).resolve().parents[1]
PROPOSAL = "recovery_hparams.yaml"
# switches of the dead command that the proposal replaces; those of the second group have a value
DROPPED = ("--fresh", "--warm-start", "--resume-with-changes")
DROPPED_WITH_VALUE = ("--hparams", "--hparams-file", "--preset", "-c", "--checkpoint-path", "-o", "--output-directory")


@dataclass(frozen=True)
class Findings:
    """All files of a run's `checkpoints/` that end in .pt, newest step first."""

    statuses: Sequence[checkpoint_dir.CheckpointStatus]

    @property
    def good(self) -> list[checkpoint_dir.CheckpointStatus]:
        return [status for status in self.statuses if status.problem is None]

    @property
    def newest(self) -> checkpoint_dir.CheckpointStatus | None:
        return self.good[0] if self.good else None


def examine(run: Path) -> Findings:
    """Reads every checkpoint of a run as a whole: about a gigabyte in a few seconds."""
    files = sorted((run / "checkpoints").glob("*.pt")) if (run / "checkpoints").is_dir() else []
    statuses = [checkpoint_dir.status_of(path) for path in files]
    return Findings(sorted(statuses, key=lambda v: (v.step is not None, v.step or 0, v.path.name), reverse=True))


def repair_pointers(run: Path, findings: Findings) -> list[str]:
    """Makes `last` and `best` name whole checkpoints. -> what was changed, in words"""
    directory, good, done = run / "checkpoints", findings.good, list[str]()
    if not good:
        return done
    named = {status.path for status in good}
    if checkpoint_dir.pointed(directory, "last") != good[0].path:
        checkpoint_dir.point(directory, "last", good[0].path)
        done.append(f"last -> {good[0].path.name}")
    if checkpoint_dir.pointed(directory, "best") not in named:
        best = _best_of(good, run)
        checkpoint_dir.point(directory, "best", best)
        done.append(f"best -> {best.name}")
    return done


def _best_of(good: Sequence[checkpoint_dir.CheckpointStatus], run: Path) -> Path:
    """The whole checkpoint with the best recorded score; the newest where none was validated."""
    scores = {line["step"]: number(line.get("score")) for line in read_run(run).evals}
    judged = [(scores[v.step], v.path) for v in good if v.step in scores and isfinite(scores[v.step])]
    return min(judged)[1] if judged else good[0].path


def quarantine(findings: Findings) -> list[Path]:
    """Sets aside what training must not go on from: files named like checkpoints that are not whole."""
    return [
        checkpoint_dir.quarantine(v.path)
        for v in findings.statuses
        if v.problem and checkpoint_dir.NAME.fullmatch(v.path.name)
    ]


def chosen(findings: Findings, path: Path | None, run: Path) -> checkpoint_dir.CheckpointStatus:
    """The checkpoint to go on from: the one that was asked for, else the newest whole one."""
    if path is None:
        if findings.newest is None and not findings.statuses:
            raise NothingToRecover(f"{run}: it has saved nothing yet; the command that began it begins it anew")
        if findings.newest is None:
            raise NothingToRecover(
                f"{run}: none of its {len(findings.statuses)} checkpoints is whole; start anew with "
                f"python train.py -o {run} --fresh (the old run is moved aside), or name a file with --checkpoint"
            )
        return findings.newest
    if not path.is_file():
        raise UserError(f"--checkpoint {path}: no such file")
    status = checkpoint_dir.status_of(path)
    if status.problem is not None:
        raise NothingToRecover(f"--checkpoint {path} {status.problem}; name another one, or none for the newest whole")
    return status


def strip_optimizer(path: Path, run: Path) -> Path:
    """A copy that can be spoken with and started from, a third of the size. -> where"""
    directory = run / "recovered"
    return checkpoint_dir.save(replace(checkpoint_file.load(path), training=None), directory)


def export_weights(path: Path, run: Path) -> Path:
    """The bare weights under NVIDIA's names: `{"state_dict": ..., "iteration": step}`. -> where"""
    saved = checkpoint_file.load(path)
    target = run / "recovered" / f"{path.stem}.weights.pt"
    target.parent.mkdir(exist_ok=True)
    torch.save({"state_dict": saved.model, "iteration": saved.step}, target)
    return target


def proposal(checkpoint: Path, safer: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint's own hyperparameters that are not the defaults, with the safer ones in place."""
    values = {**checkpoint_file.load(checkpoint).voice.hparams, **safer}
    defaults = create_hparams().canonical()
    return {name: value for name, value in values.items() if name in defaults and value != defaults[name]}


def write_proposal(run: Path, checkpoint: Path, safer: Mapping[str, Any], reasons: Sequence[str]) -> Path:
    comments = "".join(f"# {reason}\n" for reason in reasons)
    path = run / PROPOSAL
    body = yaml.safe_dump(proposal(checkpoint, safer), sort_keys=False, allow_unicode=True)
    how = ", made safer" if safer else ""
    write_atomic(path, f"# For train.py --hparams-file: this run's settings{how}.\n{comments}{body}")
    return path


def restart_command(diagnosis: Diagnosis, proposed: Path, *, checkpoint: Path | None) -> list[str]:
    """The dead run's own command, with the proposal in place of its hyperparameters.

    With a checkpoint that was asked for it goes on in a directory of its own, so that nothing newer is in its way.
    """
    run = diagnosis.directory.resolve()
    target = run if checkpoint is None else run.with_name(f"{run.name}-recovered")
    words = _kept(diagnosis.command[1:])
    if not any(word.startswith(("-l", "--log")) for word in words):
        words += ["-l", str(Path("logs") / target.name)]
    words += ["-o", str(target)]
    words += ["--hparams-file", str(proposed.resolve()), "--resume-with-changes"]
    if checkpoint is not None:
        words += ["-c", str(checkpoint.resolve())]
    if diagnosis.processes > 1:
        words = [str(HERE / "train.py"), *words]
        return [sys.executable, str(HERE / "multiproc.py"), "--n_gpus", str(diagnosis.processes), *words]
    return [sys.executable, str(HERE / "train.py"), *words]


def own_command(diagnosis: Diagnosis) -> list[str]:
    """What to type to go on with the run's own settings; [] where its command is unknown. --fresh would begin anew."""
    words = [word for word in diagnosis.command if word != "--fresh"]
    launcher = ["multiproc.py", "--n_gpus", str(diagnosis.processes)] if diagnosis.processes > 1 else []
    return ["python", *launcher, *words] if words else []


def _kept(arguments: Sequence[str]) -> list[str]:
    kept, words = list[str](), iter(arguments)
    for word in words:
        name, equals, _ = word.partition("=")
        name = name.replace("_", "-")
        if name in DROPPED_WITH_VALUE:
            if not equals:
                next(words, None)
        elif name not in DROPPED and not re.match("-[oc].", word):  # -oDIR carries its value
            kept.append(word)
    return kept


def as_json(diagnosis: Diagnosis, findings: Findings, done: Sequence[str]) -> str:
    content = {**vars(diagnosis), "directory": str(diagnosis.directory), "done": list(done)}
    content["checkpoints"] = [{**vars(v), "path": str(v.path)} for v in findings.statuses]
    return json.dumps(content, ensure_ascii=False, indent=1, default=list)
