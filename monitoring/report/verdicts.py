"""What a person wants to know first: does it run, is it healthy, does it align. Words are in messages.yaml."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite, nan
from statistics import mean
from typing import Literal

from recovery.advice import ALIGNED, MUCH_WAITING
from recovery.diagnosis import saved_hparams, state_of, unusual_silence_s
from run_directory.reader import Record, Run, number
from run_directory.records import URGENT_KINDS

Level = Literal["good", "watch", "bad", "plain"]
RECENT_RECORDS = 50
RECENT_SHARE = 0.1  # of the steps done: an alert in there is news
WORSE_RATIO, WORSE_BY = 1.3, 0.05  # a score so far above the best is a loss, not noise between validations
STALE_VALIDATIONS = 10  # without a better score, worth a word
# By this step voices of a preset were aligned, with and without a base voice: docs/performance.md.
ALIGNED_BY = {"demo": 300, "small": 800}


@dataclass(frozen=True)
class HealthSign:
    """`key` names a message, `facts` fill it in."""

    level: Level
    key: str
    facts: Mapping[str, object] = field(default_factory=dict)


def state(run: Run, *, now: float) -> HealthSign:
    """What became of it, as `diagnosis` says; running, ended and why, or gone without a record of its end."""
    if run.last_time is None:
        return HealthSign("plain", "state_empty")
    became, why = state_of(run, now=now)
    if became in ("finished", "interrupted"):
        return HealthSign("plain", "state_ended", {"reason": why})
    if became != "running":
        return HealthSign("bad", f"state_{became}", {"silent_s": now - run.last_time})
    silent_s = unusual_silence_s(run, now=now)
    return (
        HealthSign("bad", "state_silent", {"silent_s": silent_s}) if silent_s else HealthSign("good", "state_running")
    )


def health(run: Run, *, now: float) -> list[HealthSign]:
    """Everything that is wrong, the worst first; one good verdict if nothing is."""
    found = [HealthSign("bad", "health_down")] if state(run, now=now).level == "bad" else []
    if not run.steps:
        return found or [HealthSign("plain", "health_nothing")]
    newest = run.steps[-1]
    if not isfinite(number(newest["losses"].get("total"))):
        found.append(HealthSign("bad", "health_not_finite", {"step": newest["step"]}))
    recent_from = newest["step"] * (1 - RECENT_SHARE)
    alerts: dict[str, list[Record]] = {}
    for event in run.events:
        if event["kind"] in URGENT_KINDS and event["step"] >= recent_from:
            alerts.setdefault(event["kind"], []).append(event)
    for kind, events in alerts.items():
        level: Level = "bad" if kind in ("not_saved", "save_failed") else "watch"
        found.append(HealthSign(level, "health_alert", {"kind": kind, "n": len(events), "step": events[-1]["step"]}))
    best = run.best
    since = len([e for e in run.evals if best is not None and e["step"] > best["step"]])
    if best is not None and since >= STALE_VALIDATIONS:
        found.append(HealthSign("watch", "health_stale", {"n": since, "step": best["step"]}))
    score = number(run.evals[-1].get("score")) if run.evals else nan
    if best is not None and score > WORSE_RATIO * number(best.get("score")) + WORSE_BY:
        found.append(HealthSign("watch", "health_worse", {"score": score, "best": number(best.get("score"))}))
    waits = [w for w in (number(r.get("data_wait")) for r in run.steps[-RECENT_RECORDS:]) if isfinite(w)]
    if waits and mean(waits) > MUCH_WAITING:
        found.append(HealthSign("watch", "health_waits", {"percent": round(100 * mean(waits))}))
    return sorted(found, key=lambda v: v.level != "bad") or [HealthSign("good", "health_good")]


def alignment(run: Run) -> HealthSign:
    """Whether the newest free-running speech follows its text. facts: shares, percent that stop, and the step."""
    newest = next((e for e in reversed(run.evals) if e.get("free_running")), None)
    if newest is None:
        return HealthSign("plain", "aligns_unknown")
    free = newest["free_running"]
    share = number(free.get("alignment"))
    stops = 100 * number(free.get("stop_rate"))
    facts = {"alignment": share, "coverage": number(free.get("coverage")), "stops": stops, "step": newest["step"]}
    if share >= ALIGNED:
        return HealthSign("good", "aligns_yes", facts)
    if share >= saved_hparams(run).alignment_diagonal_threshold:
        return HealthSign("watch", "aligns_partly", facts)
    is_early = newest["step"] < expected_alignment(run)[1]
    return HealthSign("watch" if is_early else "bad", "aligns_no", facts)


def what_is_usual(run: Run) -> HealthSign | None:
    """Whether it is normal that the voice does not align, or has not spoken; None where there is nothing to explain."""
    found = alignment(run)
    if found.level == "good" or (found.key == "aligns_unknown" and run.evals):
        return None
    if found.key == "aligns_unknown":
        return HealthSign("plain", "before_validation", {"step": saved_hparams(run).validate_interval})
    key, step = expected_alignment(run)
    return HealthSign("plain", key if number(found.facts["step"]) < step else "aligns_late", {"step": step})


def expected_alignment(run: Run) -> tuple[str, int]:
    """(message, step by which a voice usually aligns): as measured with its preset, or while attention is guided."""
    command = run.info.get("command")
    presets = re.findall(r"--preset[=\s](\w+)", " ".join(map(str, command))) if isinstance(command, list) else []
    if presets and presets[-1] in ALIGNED_BY:
        return "aligns_early", ALIGNED_BY[presets[-1]]
    return "aligns_guided", saved_hparams(run).guide_loss_decay_start
