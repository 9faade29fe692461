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
from common.errors import NothingToRecover, UserError, says_no_memory
from hparams import HParams, create_hparams
from run_directory.paths import is_in_use
from run_directory.reader import Record, Run, number, read_mapping, read_run

State = Literal["running", "finished", "interrupted", "gave_up", "crashed", "killed", "not_started"]
COMPLETE = frozenset({"epochs", "early_stopping", "max_steps", "max_minutes"})  # reasons of an `ended` event
COPIES = {"previous", "mlflow-artifacts"}  # folders under which run.json is no run's that could go on
ROSE = 3.0  # a loss of so many times its recent median has risen
RECENT = 20  # step records that count as recent
LEAST_SILENCE_S = 300.0  # nobody is called dead sooner
SILENCE_IN_GAPS = 3.0  # times the longest of the recent gaps between records: a validation may take long
FORMED, LOST = 0.5, 0.25  # free-running alignment that had been there, and that is gone


@dataclass(frozen=True)
class Diagnosis:
    """One run. Times are seconds since 1970, as in its files."""

    directory: Path
    state: State
    why: str
    step: int  # the last recorded one
    at: float | None
    command: Sequence[str]
    working_directory: str | None
    processes: int
    causes: Sequence[str] = ()
    safer: Mapping[str, Any] = field(default_factory=dict)  # hyperparameters that make the same end less likely
    reasons: Sequence[str] = ()  # for each of `safer`
    utterances: Sequence[str] = ()
    problems: Sequence[str] = ()  # files of the run that could not be read


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
    if diagnosis.utterances:
        lines.append(f"utterances:  {', '.join(diagnosis.utterances)}")
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
        raise UserError(f"{directory}: no such directory; name the one that was given to train.py as -o")
    run = read_run(directory)
    if not run.info and not run.events and not (directory / "checkpoints").is_dir():
        raise UserError(f"{directory} holds no run: neither run.json nor checkpoints/ is in it")
    attempt = _last_attempt(run)
    state, why = state_of(run, now=time.time())
    written = read_mapping(directory / "diagnosis.json", []) if state == "gave_up" else {}
    causes, safer, reasons = _advice(run, attempt, state)
    lines = [*attempt, *run.steps, *run.evals]
    return Diagnosis(
        directory=directory,
        state=state,
        why=written.get("message", why),
        step=max((int(line["step"]) for line in lines), default=0),
        at=max((number(line.get("time")) for line in lines), default=None),
        command=run.info.get("command", ()),
        working_directory=run.info.get("working_directory"),
        processes=int(run.info.get("processes", 1)),
        causes=[*written.get("causes", ()), *causes],
        safer=safer,
        reasons=reasons,
        utterances=written.get("utterances", ()),
        problems=[problem for problem in run.problems if "No such file" not in problem],
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
        return ("finished", reason) if reason in COMPLETE else ("interrupted", reason)
    host, silence_s = run.info.get("host"), unusual_silence_s(run, now=now)
    is_elsewhere = host != platform.node() and run.last_time is not None and not silence_s
    if is_in_use(run.directory) or is_elsewhere:
        hangs = f", but has recorded nothing for {duration(silence_s)}: does it hang?" if silence_s else ""
        return "running", f"process {run.info.get('pid')} on {host} is still at work{hangs}"
    if "started" not in kinds and not run.steps:
        return "not_started", "it ended before its first step"
    hint = "killed from outside (kill -9, the system's out-of-memory killer), a power cut or a crash of the machine"
    return "killed", f"it stopped without a word: {hint}"


@dataclass
class _Advice:
    """Gathers causes, and for each setting the safest of the values that were proposed."""

    causes: list[str] = field(default_factory=list)
    safer: dict[str, Any] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)

    def cause(self, text: str, **safer: tuple[Any, str]) -> None:
        self.causes.append(text)
        for name, (value, reason) in safer.items():
            if name not in self.safer:
                self.safer[name] = value
                self.reasons.append(f"{name}={value}: {reason}")


def _advice(run: Run, attempt: Sequence[Record], state: State) -> tuple[list[str], dict[str, Any], list[str]]:
    """Causes that the records speak for, and settings that answer them; nothing for a run that is fine."""
    advice, hp = _Advice(), saved_hparams(run)
    if state in ("running", "finished", "interrupted"):
        return [], {}, []
    said = [(line["kind"], str(line.get("message", ""))) for line in attempt]
    if any(kind == "out_of_memory" or says_no_memory(message) for kind, message in said):
        _memory(advice, hp)
    if any(kind == "save_failed" or "No space left" in message for kind, message in said):
        advice.cause("the disk was full or failing: free some space before going on (df -h)")
    _numbers(advice, run.steps[-RECENT:], attempt, hp)
    _alignment(advice, run.evals, hp)
    return advice.causes, advice.safer, advice.reasons


def _memory(advice: _Advice, hp: HParams) -> None:
    halved = max(hp.batch_size // 2, 1)
    k = hp.gradient_accumulation_steps * (2 if halved < hp.batch_size else 1)
    advice.cause(
        "memory ran out",
        batch_size=(halved, "half the memory for activations"),
        gradient_accumulation_steps=(k, "so that a step still sees as many utterances"),
        fp16_run=(True, "half-precision activations take less memory"),
    )


def _numbers(advice: _Advice, steps: Sequence[Record], attempt: Sequence[Record], hp: HParams) -> None:
    """Losses and gradients that were not finite, exploded, or rose."""
    skipped = sum(line.get("skipped", 0) for line in steps)
    rollbacks = sum(line["kind"] in ("rollback", "gave_up") for line in attempt)
    calmer = {
        "learning_rate": (hp.learning_rate / 2, "smaller steps"),
        "grad_clip_thresh": (min(hp.grad_clip_thresh, max(hp.grad_clip_thresh / 2, 0.1)), "a single step moves less"),
    }
    if skipped or rollbacks:
        halves = {"amp_dtype": ("bf16", "its range is that of fp32: no overflow")} if hp.fp16_run else {}
        counts = f"{skipped} skipped steps, {rollbacks} rollbacks"
        advice.cause(f"losses or gradients were not finite ({counts})", **calmer, **halves)
    norms = [norm for line in steps if isfinite(norm := number(line.get("grad_norm")))]
    if norms and max(norms) > hp.gradient_explosion_threshold:
        advice.cause(f"gradients exploded: their norm reached {max(norms):.3g}", **calmer)
    totals = [total for line in steps if isfinite(total := number(line["losses"].get("total")))]
    if len(totals) > 3 and totals[-1] > ROSE * median(totals[:-1]) > 0:
        advice.cause(f"the loss rose from about {median(totals[:-1]):.3g} to {totals[-1]:.3g}", **calmer)


def _alignment(advice: _Advice, evaluations: Sequence[Record], hp: HParams) -> None:
    seen = [number(line.get("free_running", {}).get("alignment")) for line in evaluations]
    values = [value for value in seen if isfinite(value)]
    if values and max(values) >= FORMED and values[-1] < LOST:
        advice.cause(
            f"the alignment had formed ({max(values):.2f}) and was lost ({values[-1]:.2f})",
            learning_rate=(hp.learning_rate / 2, "smaller steps"),
            guide_loss_weight=(max(hp.guide_loss_weight, 1.0) * 2, "guided attention pulls it back"),
        )
