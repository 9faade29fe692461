"""The page: everything about a run that is worth a look, as one HTML file without scripts or outside parts."""

import json
import shlex
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from math import isfinite
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from common.durations import duration
from common.errors import UserError
from common.files import write_atomic
from common.translations import Language, messages
from hparams import field_info, field_names
from monitoring.event_words import event_kind, event_message
from monitoring.report import verdicts
from monitoring.report.charts import Chart, Series, chart, compact, series
from monitoring.report.media import picture_uri, sound_uri
from run_directory.reader import Record, Run, number, read_run
from run_directory.records import URGENT_KINDS
from settings.help import read_help
from tools import format_value

NAME = "report.html"
QUIET_KINDS = frozenset({"saved"})  # counted, not listed
SHOWN_EVENTS = 200
STRIP_PICTURES = 8  # of one text over time
STRIP_WIDTH, PICTURE_WIDTH = 360, 1200  # pixels
SHARES = ("alignment", "coverage", "monotonicity", "sharpness", "stop_rate")


@dataclass(frozen=True)
class Spoken:
    """One sample as the page shows it: data URIs, or None where there is no file."""

    title: str
    stop_reason: str
    sound: str | None
    picture: str | None
    picture_step: int | None


@dataclass(frozen=True)
class Row:
    """Events of one kind and wording that followed each other, in the page's language."""

    when: str
    steps: str
    kind: str
    message: str
    data: str
    n: int
    is_urgent: bool


def write_report(directory: Path, language: Language) -> Path:
    """Writes `report.html` of a run directory. UserError if that holds no run; OSError if the disk refuses."""
    known = ("metrics.jsonl", "events.jsonl", "run.json", "hparams.yaml")
    if not any((directory / name).exists() for name in known):
        wanted = ", ".join(known)
        raise UserError(f"{directory} is no run directory: none of {wanted} is there; name the -o of a training")
    path = directory / NAME
    write_atomic(path, render(read_run(directory), language, now=time.time()))
    return path


def render(run: Run, language: Language, *, now: float) -> str:
    words = messages("report", language)
    newest, best = max(run.sounds, default=None), run.best
    wanted = [newest, best["step"] if best else None]
    return _template().render(
        words=words,
        language=language,
        name=run.directory.resolve().name,
        now=time.strftime("%Y-%m-%d %H:%M %Z", time.localtime(now)),
        state=_say(verdicts.state(run, now=now), words, language),
        health=[_say(v, words, language) for v in verdicts.health(run, now=now)],
        alignment=_say(aligned := verdicts.alignment(run), words, language),
        alignment_more=words["aligns_more"].format(**aligned.facts) if aligned.facts else "",
        usual=_say(usual, words, language)[1] if (usual := verdicts.what_is_usual(run)) else "",
        cover=_cover(run),
        progress=_progress(run, words),
        samples={step: _spoken(run, step, words) for step in wanted if step is not None and step in run.sounds},
        newest_step=newest,
        best_step=best["step"] if best else None,
        best_score=compact(number(best.get("score"))) if best else "",
        distance=_newest_free(run, "mel_distance"),
        charts=_charts(run, words),
        strips=_strips(run, words),
        rows=_rows(run.events, words, language)[:SHOWN_EVENTS],
        n_saved=Counter(e["kind"] for e in run.events)["saved"],
        parameters=_parameters(run.hparams, language),
        facts=_facts(run, words, language),
        problems=run.problems,
    )


@cache
def _template() -> Any:
    loader = FileSystemLoader(Path(__file__).parent)
    settings: dict[str, Any] = {"autoescape": True, "undefined": StrictUndefined, "trim_blocks": True}
    return Environment(loader=loader, lstrip_blocks=True, **settings).get_template("page.html")


# ---- first glance


def _say(sign: verdicts.HealthSign, words: dict[str, str], language: Language) -> tuple[str, str]:
    """(level, sentence)"""
    facts = {key: _fact(key, value, words, language) for key, value in sign.facts.items()}
    return sign.level, words[sign.key].format(**facts)


def _fact(key: str, value: object, words: dict[str, str], language: Language) -> str:
    if key == "reason":
        return words.get(f"ended_{value}", str(value))
    if key == "kind":
        name = event_kind(str(value), language)
        return name[:1].upper() + name[1:]
    if key == "silent_s":
        return duration(number(value))
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _newest_free(run: Run, name: str) -> str:
    values = [e["free_running"][name] for e in run.evals if name in (e.get("free_running") or {})]
    return compact(float(f"{number(values[-1]):.2g}")) if values else ""


def _cover(run: Run) -> tuple[int, str] | None:
    """The newest alignment of the first text: (step, data URI)."""
    step = max((step for step, files in run.alignments.items() if 0 in files), default=None)
    uri = None if step is None else picture_uri(run.alignments[step][0], width=STRIP_WIDTH)
    return None if step is None or uri is None else (step, uri)


def _progress(run: Run, words: dict[str, str]) -> list[tuple[str, str]]:
    """What stands under the title."""
    if not run.steps:
        return []
    newest = run.steps[-1]
    epoch, epochs = number(newest.get("epoch")), number(run.hparams.get("epochs"))
    is_plan = isfinite(epochs) and epochs != field_info("epochs").default  # which is a bound for ever
    of = words["of"].format(n=f"{epochs:.0f}") if is_plan else ""
    found = [(words["step"], str(newest["step"])), (words["epoch"], f"{epoch:.1f} {of}".strip())]
    if (spent := _trained_s(run)) > 0:
        found.append((words["trained"], duration(spent)))
    return [*found, (words["step_time"], f"{number(newest.get('step_s')):.2f} s")]


def _trained_s(run: Run) -> float:
    """Seconds between the first and the last record of each attempt."""
    total = 0.0
    records = sorted([*run.steps, *run.evals, *run.events], key=_attempt)
    for _, group in groupby(records, key=_attempt):
        times = [t for t in (number(r.get("time")) for r in group) if isfinite(t)]
        total += max(times, default=0.0) - min(times, default=0.0)
    return total


def _attempt(record: Record) -> float:
    n = number(record.get("attempt"))
    return n if isfinite(n) else 0.0


# ---- curves


def _charts(run: Run, words: dict[str, str]) -> list[Chart]:
    alerts = [float(e["step"]) for e in run.events if e["kind"] in URGENT_KINDS]
    trained, validated = words["training"], words["validation"]

    def losses(records: Sequence[Record], *, dotted: bool) -> list[Series]:
        names = sorted({name for r in records for name in r["losses"]} - {"mel"})  # "mel_post" tells as much
        return [series(name, records, "losses", name, dotted=dotted) for name in names]

    def alone(*names: str) -> list[Series]:
        return [series(name, run.evals, "free_running", name, dotted=True) for name in names]

    mel = [
        series(trained, run.steps, "losses", "mel_post"),
        series(validated, run.evals, "losses", "mel_post", dotted=True),
    ]
    drawn = [
        chart(words["chart_shares"], alone(*SHARES), hint=words["hint_shares"], limits=(0, 1)),
        chart(words["chart_score"], [series("score", run.evals, "score", dotted=True)], hint=words["hint_score"]),
        chart(words["chart_mel"], mel, hint=words["hint_mel"], alerts=alerts),
        chart(words["chart_distance"], alone("mel_distance", "duration_error"), hint=words["hint_distance"]),
        chart(words["chart_losses"], losses(run.steps, dotted=False), alerts=alerts),
        chart(words["chart_validation"], losses(run.evals, dotted=True)),
        chart(words["chart_gradient"], [series("grad_norm", run.steps, "grad_norm")], hint=words["hint_gradient"],
              alerts=alerts),
        chart(words["chart_rate"], [series("learning_rate", run.steps, "learning_rate")]),
        chart(words["chart_speed"], [series("frames_per_s", run.steps, "frames_per_s")], hint=words["hint_speed"]),
    ]  # fmt: skip
    return [c for c in drawn if c is not None]


# ---- samples


def _spoken(run: Run, step: int, words: dict[str, str]) -> list[Spoken]:
    said = run.texts(step)
    found = []
    for i, sound in sorted(run.sounds[step].items()):
        text = said[i] if i < len(said) else {}
        pictured = max((s for s, files in run.pictures.items() if s <= step and i in files), default=None)
        found.append(
            Spoken(
                str(text.get("text") or words["sample"].format(n=i + 1)),
                words.get(f"stopped_{text.get('stop_reason')}", ""),
                sound_uri(sound),
                None if pictured is None else picture_uri(run.pictures[pictured][i], width=PICTURE_WIDTH),
                pictured,
            )
        )
    return found


def _strips(run: Run, words: dict[str, str]) -> list[tuple[str, list[tuple[int, str]]]]:
    """For each text its alignments over time: (title, [(step, data URI), ...])."""
    said = run.texts(max(run.sounds, default=0))
    found = []
    for i in sorted({i for files in run.alignments.values() for i in files}):
        steps = _spread_over([step for step, files in sorted(run.alignments.items()) if i in files])
        pictures = [(step, picture_uri(run.alignments[step][i], width=STRIP_WIDTH)) for step in steps]
        title = str(said[i].get("text") if i < len(said) else words["sample"].format(n=i + 1))
        found.append((title, [(step, uri) for step, uri in pictures if uri is not None]))
    return found


def _spread_over(steps: Sequence[int]) -> list[int]:
    """The first, the last, and evenly between."""
    n = min(STRIP_PICTURES, len(steps))
    return [steps[round(k * (len(steps) - 1) / max(n - 1, 1))] for k in range(n)]


# ---- tables


def _rows(events: Sequence[Record], words: dict[str, str], language: Language) -> list[Row]:
    """Newest first; repetitions are one row with their count."""
    listed = [e for e in reversed(events) if e["kind"] not in QUIET_KINDS]
    alike = groupby(listed, key=lambda e: (e["kind"], str(e.get("message", ""))))
    return [_row(list(group), words, language) for _, group in alike]


def _row(events: Sequence[Record], words: dict[str, str], language: Language) -> Row:
    newest, oldest = events[0], events[-1]
    steps = str(newest["step"]) if newest["step"] == oldest["step"] else f"{oldest['step']}-{newest['step']}"
    data, message = newest.get("data") or "", str(newest.get("message", ""))
    return Row(
        _clock(number(newest.get("time"))),
        steps,
        event_kind(newest["kind"], language),
        words.get(f"ended_{message}") or event_message(message, language),
        json.dumps(data, ensure_ascii=False)[:300] if data else "",
        len(events),
        newest["kind"] in URGENT_KINDS,
    )


def _parameters(values: Record, language: Language) -> list[tuple[str, str, str, str]]:
    """(name, value, default, meaning) of what differs from the defaults, in the order of declaration."""
    known, found = set(field_names()), []
    for name, value in values.items():
        if name not in known:
            found.append((str(name), _shown(value), "", ""))
            continue
        default = field_info(name).default
        if (list(default) if isinstance(default, tuple) else default) != value:
            found.append((name, _shown(value), _shown(default), _help()[name][language]))
    return found


@cache
def _help() -> dict[str, dict[str, str]]:
    return read_help()


def _shown(value: object) -> str:
    is_plain = isinstance(value, bool | int | float | str | list | tuple)
    return format_value(list(value) if isinstance(value, tuple) else value) if is_plain else str(value)


def _facts(run: Run, words: dict[str, str], language: Language) -> list[tuple[str, str]]:
    info, started = run.info, [e for e in run.events if e["kind"] == "started"]
    command = info.get("command")
    versions = info.get("versions")
    times = [number(r.get("time")) for r in (*run.steps[:1], *run.evals[:1], *run.events[:1])]
    facts = {
        "fact_command": shlex.join(str(part) for part in command) if isinstance(command, list) else "",
        "fact_started": _clock(min((t for t in times if isfinite(t)), default=float("nan"))),
        "fact_last": _clock(run.last_time if run.last_time is not None else float("nan")),
        "fact_attempts": str(info.get("attempt", "")),
        "fact_model": event_message(str(started[-1].get("message", "")), language) if started else "",
        "fact_data": str(info.get("data", "")),
        "fact_skipped": str(int(sum(s for s in (number(r.get("skipped")) for r in run.steps) if isfinite(s)))),
        "fact_versions": ", ".join(f"{k} {v}" for k, v in versions.items()) if isinstance(versions, dict) else "",
        "fact_revision": str(info.get("git_revision") or ""),
        "fact_directory": str(run.directory.resolve()),
    }
    return [(words[key], value) for key, value in facts.items() if value]


def _clock(seconds: float) -> str:
    """Local time; nothing for what is no time."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
    except (ValueError, OverflowError, OSError):
        return ""
