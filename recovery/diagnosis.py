"""What became of a run, from its files alone: whether it ended, when and why, and what would be safer. No torch."""

import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import isfinite, nan
from pathlib import Path
from statistics import median
from typing import Any, Literal

from pydantic import ValidationError

from common.durations import duration
from common.errors import NothingToRecover, UserError
from hparams import HParams, create_hparams
from recovery.advice import RULES, Symptom, advice_for, safer_settings
from recovery.ladder import LOST_SHARE
from run_directory.paths import is_in_use
from run_directory.reader import Record, Run, number, read_mapping, read_run

State = Literal["running", "finished", "interrupted", "gave_up", "crashed", "killed", "not_started"]
COMPLETE = frozenset({"epochs", "early_stopping", "max_steps", "max_minutes"})  # reasons of an `ended` event
COPIES = {"previous", "mlflow-artifacts"}  # folders under which run.json is no run's that could go on
ROSE = 3.0  # a loss of so many times its recent median has risen
RECENT = 20  # step records that count as recent
LEAST_SILENCE_S = 300.0  # nobody is called dead sooner
SILENCE_IN_GAPS = 3.0  # times the longest of the recent gaps between records: a validation may take long


@dataclass(frozen=True)
class Diagnosis:
    """One run. Times are seconds since 1970, as in its files."""

    directory: Path
    state: State
    why: str
    step: int  # the last recorded one
    at: float | None
    command: Sequence[str] = ()
    working_directory: str | None = None
    processes: int = 1
    causes: Sequence[str] = ()
    advice: Sequence[str] = ()
    safer: Mapping[str, Any] = field(default_factory=dict)  # hyperparameters that make the same end less likely
    reasons: Sequence[str] = ()  # for each of `safer`
    utterances: Sequence[str] = ()
    last_good: str | None = None  # checkpoint, where training gave up
    problems: Sequence[str] = ()  # files of the run that could not be read


def diagnosis_of_end(directory: Path, content: Mapping[str, Any]) -> Diagnosis:
    """Of a run that gives up now. content: what it writes to `diagnosis.json`."""
    return Diagnosis(
        directory=directory,
        state="gave_up",
        why=content["message"],
        step=content["step"],
        at=content["time"],
        causes=content["causes"],
        advice=content["advice"],
        utterances=content["utterances"],
        last_good=content["last_good"],
    )


def format_diagnosis(diagnosis: Diagnosis) -> str:
    """For a person."""
    when = "at an unknown time"
    if diagnosis.at:
        ago = duration(max(time.time() - diagnosis.at, 0.0))
        when = f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(diagnosis.at))}, {ago} ago"
    lines = [f"run:         {diagnosis.directory}"]
    lines.append(f"state:       {diagnosis.state.replace('_', ' ')}: {diagnosis.why}")
    lines.append(f"last record: step {diagnosis.step}, {when}")
    lines += [f"unreadable:  {problem}" for problem in diagnosis.problems]
    lines += [f"cause:       {cause}" for cause in diagnosis.causes]
    lines += [f"advice:      {text}" for text in diagnosis.advice]
    if diagnosis.utterances:
        lines.append(f"utterances:  {', '.join(diagnosis.utterances)}")
    if diagnosis.state == "gave_up":
        lines.append(f"last good:   {diagnosis.last_good or 'no checkpoint'}")
    return "\n".join(lines)


def newest_run(root: Path) -> Path:
    """The run under `root`, however deep, that wrote last. NothingToRecover if there is none."""
    runs = [path.parent for path in root.rglob("run.json") if not COPIES & set(path.relative_to(root).parts)]
    if not runs:
        raise NothingToRecover(f"no run under {root}/: name the directory that was given to train.py as -o")
    return max(runs, key=_last_write)


def _last_write(run: Path) -> float:
    files = (run / name for name in ("run.json", "metrics.jsonl", "events.jsonl"))
    return max(path.stat().st_mtime for path in files if path.exists())


def diagnose(directory: Path) -> Diagnosis:
    """Reads what the run has recorded. UserError if this is no run."""
    if not directory.is_dir():
        what = " is a file, and no run directory" if directory.exists() else ": no such directory"
        raise UserError(f"{directory}{what}; name the one that was given to train.py as -o")
    run = read_run(directory)
    if not run.info and not run.events and not (directory / "checkpoints").is_dir():
        raise UserError(f"{directory} holds no run: neither run.json nor checkpoints/ is in it")
    state, why = state_of(run, now=time.time())
    written = read_mapping(directory / "diagnosis.json", []) if state == "gave_up" else {}
    is_down = state not in ("running", "finished", "interrupted")
    hp = saved_hparams(run)
    found = find_symptoms(run, hp) if is_down else []
    safer = safer_settings([finding.symptom for finding in found], hp)
    lines = [*_last_attempt(run), *run.steps, *run.evals]
    return Diagnosis(
        directory=directory,
        state=state,
        why=written.get("message", why),
        step=max((int(line["step"]) for line in lines), default=0),
        at=max((number(line.get("time")) for line in lines), default=None),
        command=run.info.get("command", ()),
        working_directory=run.info.get("working_directory"),
        processes=int(run.info.get("processes", 1)),
        causes=[*written.get("causes", ()), *map(str, found)],
        advice=written.get("advice") or advice_for([finding.symptom for finding in found]),
        safer={name: setting.value for name, setting in safer.items()},
        reasons=[f"{name}={setting.value}: {setting.reason}" for name, setting in safer.items()],
        utterances=written.get("utterances", ()),
        last_good=written.get("last_good"),
        problems=[str(problem) for problem in run.problems if not problem.is_missing],
    )


def _last_attempt(run: Run) -> list[Record]:
    """The events of the newest launch."""
    last = max((number(event.get("attempt")) for event in run.events), default=nan)
    return [event for event in run.events if number(event.get("attempt")) == last]


def saved_hparams(run: Run) -> HParams:
    """Of hparams.yaml, names that this version lacks left out; the defaults where it is missing or not to be used."""
    try:
        return HParams(**{name: value for name, value in run.hparams.items() if name in HParams.model_fields})
    except ValidationError:
        return create_hparams()


def unusual_silence_s(run: Run, *, now: float) -> float:
    """Seconds since the newest record, where records used to come sooner; else 0."""
    times = [time for line in run.steps[-RECENT:] if isfinite(time := number(line.get("time")))]
    longest_gap = max((b - a for a, b in pairwise(times)), default=0.0)
    silence_s = now - run.last_time if run.last_time is not None else 0.0
    return silence_s if silence_s > max(LEAST_SILENCE_S, SILENCE_IN_GAPS * longest_gap) else 0.0


def state_of(run: Run, *, now: float) -> tuple[State, str]:
    """What became of the newest launch, and why. Whether it lives on another machine is told by its silence alone."""
    kinds = {line["kind"]: line for line in _last_attempt(run)}
    if "gave_up" in kinds:
        return "gave_up", kinds["gave_up"].get("message", "")
    if "crashed" in kinds:
        return "crashed", kinds["crashed"].get("message", "")
    if "ended" in kinds:
        reason = kinds["ended"].get("message", "")
        if lost := (kinds["ended"].get("data") or {}).get("not_saved"):
            return "interrupted", f"{reason}, but steps {lost[0]} to {lost[1]} were not saved"
        return ("finished", reason) if reason in COMPLETE else ("interrupted", reason)
    host, silence_s = run.info.get("host"), unusual_silence_s(run, now=now)
    is_elsewhere = host != platform.node() and run.last_time is not None and not silence_s
    if is_in_use(run.directory) or is_elsewhere:
        hangs = f", but has recorded nothing for {duration(silence_s)}: does it hang?" if silence_s else ""
        return "running", f"process {run.info.get('pid')} on {host} is still at work{hangs}"
    if "started" not in kinds and not run.steps:
        return "not_started", "it ended before its first step"
    hint = "killed from outside (kill -9, the system's out-of-memory killer), a power cut or a crash of the machine"
    return "killed", f"it left no record of its end: {hint}"


# ---- what the records speak for


@dataclass(frozen=True)
class Finding:
    """A symptom, and what in the records shows it."""

    symptom: Symptom
    text: str

    def __str__(self) -> str:
        return f"{self.text}; likely: {RULES[self.symptom].causes[0]}"


def find_symptoms(run: Run, hp: HParams) -> list[Finding]:
    """Of the newest launch."""
    return [*_failures(_last_attempt(run)), *_numbers(run, hp), *_alignment(run.evals, hp)]


CAUSES = {"out_of_memory": "out_of_memory", "not_validated": "out_of_memory", "save_failed": "disk_full"}  # by kind


def _failures(attempt: Sequence[Record]) -> list[Finding]:
    """What events say by their data, or by their kind where that is enough."""
    causes = {(line.get("data") or {}).get("cause") or CAUSES.get(line["kind"]) for line in attempt}
    known = (Finding("out_of_memory", "memory ran out"), Finding("disk_full", "files could not be written"))
    return [finding for finding in known if finding.symptom in causes]


def _numbers(run: Run, hp: HParams) -> list[Finding]:
    """Losses and gradients that were not finite, exploded, or rose."""
    found, steps = [], run.steps[-RECENT:]
    skipped = sum(line.get("skipped", 0) for line in steps)
    rollbacks = sum(line["kind"] in ("rollback", "gave_up") for line in _last_attempt(run))
    if skipped or rollbacks:
        counts = f"{skipped} skipped steps, {rollbacks} rollbacks"
        found.append(Finding("not_finite", f"losses or gradients were not finite ({counts})"))
    norms = [norm for line in steps if isfinite(norm := number(line.get("grad_norm")))]
    if norms and max(norms) > hp.gradient_explosion_threshold:
        found.append(Finding("explosion", f"gradients exploded: their norm reached {max(norms):.3g}"))
    totals = [total for line in steps if isfinite(total := number(line["losses"].get("total")))]
    if len(totals) > 3 and totals[-1] > ROSE * median(totals[:-1]) > 0:
        found.append(Finding("loss_rose", f"the loss rose from about {median(totals[:-1]):.3g} to {totals[-1]:.3g}"))
    return found


def _alignment(evaluations: Sequence[Record], hp: HParams) -> list[Finding]:
    seen = [number(line.get("free_running", {}).get("alignment")) for line in evaluations]
    values, formed = [value for value in seen if isfinite(value)], hp.alignment_diagonal_threshold
    if values and max(values) >= formed and values[-1] < LOST_SHARE * formed:
        text = f"the alignment had formed ({max(values):.2f}) and was lost ({values[-1]:.2f})"
        return [Finding("alignment_lost", text)]
    return []
