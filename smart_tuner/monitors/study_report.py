"""`study/report.html`: the whole search as one file without scripts or outside parts, in English or Russian."""

import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import isfinite
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

import monitoring.report
from common.durations import duration
from common.files import write_atomic
from common.translations import Language, messages
from monitoring.observer import RunInfo
from monitoring.report.charts import Chart, Series, chart, compact
from monitoring.report.media import picture_uri, sound_uri
from monitoring.report.observer import FreshPage
from run_directory.reader import read_run
from smart_tuner.importances import LEAST_TRIALS, Importance, importances
from smart_tuner.monitors.parallel import Parallel, parallel
from smart_tuner.storage import STORAGE_ERRORS
from smart_tuner.study import best_trial, confirmation_of, finished, is_confirmed, is_failed
from smart_tuner.trial_queue import origin_of, trial_name
from tools import format_value

NAME = "report.html"
SHOWN_BEST = 5
PICTURE_WIDTH = 480  # pixels
PARTS = ("alignment", "mel_distance", "stop_rate", "duration_error", "misheard")
HOUR_S = 3600.0


@dataclass(frozen=True)
class TopTrial:
    """One of the best trials as the page shows it."""

    number: int
    value: str
    values: str
    parts: tuple[tuple[str, str], ...]
    picture: str | None
    sound: str | None
    is_here: bool  # its directory is on this machine


@dataclass(frozen=True)
class Cost:
    """Trials that ended in one way, and how long they ran, all machines together."""

    ending: str
    n: int
    spent: str


class StudyReportFile(FreshPage):
    """Of a search."""

    refusals = (OSError, *STORAGE_ERRORS)

    def __init__(
        self, study: optuna.Study, directory: Path, language: Language, *, n_trials: int, every_s: float = 20.0
    ) -> None:
        super().__init__(every_s=every_s)
        self.study, self.directory, self.language, self.n_trials = study, directory, language, n_trials

    def on_start(self, run: RunInfo) -> None: ...

    def write_page(self) -> None:
        write_study_report(self.study, self.directory, self.language, n_trials=self.n_trials)


def write_study_report(study: optuna.Study, directory: Path, language: Language, *, n_trials: int) -> Path:
    path = directory / NAME
    write_atomic(path, render(study, directory, language, n_trials=n_trials, now=time.time()))
    return path


def render(study: optuna.Study, directory: Path, language: Language, *, n_trials: int, now: float) -> str:
    words = messages("search", language)
    trials, best = finished(study), best_trial(study)
    shares = importances(trials)
    return _template().render(
        words=words,
        language=language,
        name=study.study_name,
        now=time.strftime("%Y-%m-%d %H:%M %Z", time.localtime(now)),
        state=words["state"].format(done=len(trials), n=n_trials),
        why=why_best(study, words),
        charts=[one for one in (history(trials, words),) if one is not None],
        shares=[_bar(one) for one in shares],
        too_few=words["too_few"].format(n=sum(t.state == TrialState.COMPLETE for t in trials), least=LEAST_TRIALS),
        parallel=parallel_of(trials, best, shares),
        top=[top_trial(trial, directory) for trial in ranked(trials)[:SHOWN_BEST]],
        costs=costs(study),
        rows=[_row(trial) for trial in trials],
    )


@cache
def _template() -> Any:
    folders = [Path(__file__).parent, Path(monitoring.report.__path__[0])]
    loader = jinja2.FileSystemLoader(folders)
    settings: dict[str, Any] = {"autoescape": True, "undefined": jinja2.StrictUndefined, "trim_blocks": True}
    return jinja2.Environment(loader=loader, lstrip_blocks=True, **settings).get_template("study_report.html")


def ranked(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Those that were judged at their end, the best first."""
    lived = [trial for trial in trials if trial.state == TrialState.COMPLETE and not is_failed(trial)]
    return sorted(lived, key=lambda trial: (trial.constraints.get("attention", 0.0) > 0, trial.value))


# -- the best ---------------------------------------------------------------------------------------------------------


def confirmation_said(found: Mapping[str, Any], words: dict[str, str]) -> str:
    values = {name: ", ".join(f"{value:.4f}" for value in found[name]) for name in ("of_best", "of_first")}
    return words["confirmed" if is_confirmed(found) else "tie"].format(number=found["best"], **values)


def why_best(study: optuna.Study, words: dict[str, str]) -> list[str]:
    """Sentences: what the best is, and how far ahead of the settings as they were and of the next."""
    best, confirmation = best_trial(study), confirmation_of(study)
    if best is None or best.value is None:
        return [words["no_best"]]
    found = [words["best"].format(number=origin_of(best), value=best.value, epoch=best.user_attrs.get("epoch", 0.0))]
    if confirmation is None or is_confirmed(confirmation):
        found += ahead_of_others(best, finished(study), words)
    found.append(confirmation_said(confirmation, words) if confirmation else words["noise"])
    if best.constraints.get("attention", 0.0) > 0:
        found.append(words["no_attention"])
    return found


def ahead_of_others(best: FrozenTrial, trials: Sequence[FrozenTrial], words: dict[str, str]) -> list[str]:
    assert best.value is not None
    found = []
    others = [trial for trial in ranked(trials) if trial.number != best.number]
    first = next((trial for trial in others if origin_of(trial) == 0), None)
    if first is not None and first.value is not None:
        found.append(words["than_first"].format(value=first.value, gain=first.value - best.value))
    elif origin_of(best) == 0:
        found.append(words["is_first"])
    if others and others[0].value is not None:
        facts = {"number": origin_of(others[0]), "value": others[0].value, "gain": others[0].value - best.value}
        found.append(words["than_next"].format(**facts))
    return found


def top_trial(trial: FrozenTrial, directory: Path) -> TopTrial:
    """With the newest attention of the first text, and its sound."""
    own = directory / trial_name(origin_of(trial))
    run = read_run(own)
    pictures = [files[0] for _, files in sorted(run.alignments.items()) if 0 in files]
    sounds = [files[0] for _, files in sorted(run.sounds.items()) if 0 in files]
    facts = trial.user_attrs
    return TopTrial(
        origin_of(trial),
        f"{trial.value:.4f}",
        ", ".join(f"{name}={_short(value)}" for name, value in trial.params.items()),
        tuple((name, f"{facts[name]:.3g}") for name in PARTS if name in facts),
        picture_uri(pictures[-1], width=PICTURE_WIDTH) if pictures else None,
        sound_uri(sounds[-1]) if sounds else None,
        own.exists(),
    )


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else format_value(value)


# -- pictures ---------------------------------------------------------------------------------------------------------


def history(trials: Sequence[FrozenTrial], words: dict[str, str]) -> Chart | None:
    """The value of each trial at its end, and the best so far, over hours since the first began."""
    timed = [t for t in trials if t.datetime_complete is not None and t.datetime_start is not None]
    if not timed:
        return None
    began = min(t.datetime_start for t in timed if t.datetime_start is not None)
    ended = [((t.datetime_complete - began).total_seconds() / HOUR_S, t) for t in timed]  # type: ignore[operator]
    ended.sort(key=lambda pair: pair[0])
    lived = {trial.number for trial in ranked(trials)}
    judged = [(hour, t.value) for hour, t in ended if t.number in lived]
    if not judged:
        return None
    at, values = (np.array(column, dtype=float) for column in zip(*judged, strict=True))
    best = np.minimum.accumulate(values)
    so_far = Series(words["best_so_far"], np.repeat(at, 2)[1:], np.repeat(best, 2)[:-1])  # steps, not slopes
    lines = [so_far, Series(words["trial"], at, values, dotted=True)]
    failed = [hour for hour, t in ended if is_failed(t)]
    drawn = chart(words["history"], lines, hint=words["history_hint"], alerts=failed)
    assert drawn is not None
    steps, dots = drawn.lines
    return replace(drawn, lines=(steps, replace(dots, path="")))


def _bar(one: Importance) -> tuple[str, str, float, float, float]:
    """(name, in words, and per cent of the width: share, low, high)"""
    said = f"{one.share:.0%} ({one.low:.0%} - {one.high:.0%})"
    return one.name, said, 100 * one.share, 100 * one.low, 100 * one.high


def parallel_of(
    trials: Sequence[FrozenTrial], best: FrozenTrial | None, shares: Sequence[Importance]
) -> Parallel | None:
    order = {one.name: place for place, one in enumerate(shares)}
    lived = ranked(trials)
    names = sorted({name for trial in lived for name in trial.params}, key=lambda name: (order.get(name, 99), name))
    return parallel(lived, names, best=best) if len(lived) > 1 else None


# -- tables -----------------------------------------------------------------------------------------------------------


def costs(study: optuna.Study) -> list[Cost]:
    """By ending, interrupted and lost attempts included."""
    n = Counter[str]()
    seconds: dict[str, float] = defaultdict(float)
    for trial in study.get_trials(deepcopy=False):
        if trial.datetime_start is None or trial.datetime_complete is None or trial.user_attrs.get("withdrawn"):
            continue
        ending = str(trial.user_attrs.get("ending") or "lost")
        n[ending] += 1
        seconds[ending] += (trial.datetime_complete - trial.datetime_start).total_seconds()
    return [Cost(ending, n[ending], duration(seconds[ending])) for ending in sorted(n, key=lambda e: -seconds[e])]


def _row(trial: FrozenTrial) -> tuple[str, str, str, str, str]:
    value = "" if trial.value is None or trial.state != TrialState.COMPLETE or is_failed(trial) else trial.value
    shown = compact(float(f"{value:.4g}")) if isinstance(value, float) and isfinite(value) else ""
    spent = ""
    if trial.datetime_start is not None and trial.datetime_complete is not None:
        spent = duration((trial.datetime_complete - trial.datetime_start).total_seconds())
    values = ", ".join(f"{name}={_short(v)}" for name, v in trial.params.items())
    return str(origin_of(trial)), str(trial.user_attrs.get("ending", "")), shown, spent, values
