"""What a search found, for people: a table while it runs; trials.csv, best_hparams.yaml and pictures after it."""

import csv
import io
import math
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import yaml
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from optuna.trial import FrozenTrial, TrialState

from common.files import write_atomic
from common.log import LOG
from common.translations import messages
from monitoring import plots
from smart_tuner.importances import Importance, importances
from smart_tuner.monitors.study_report import why_best
from smart_tuner.objective import WORST_VALUE
from smart_tuner.study import best_trial, finished, is_failed
from smart_tuner.trial_queue import origin_of
from tools import format_value

PARTS = ("mel_distance", "alignment", "stop_rate", "duration_error", "validation_mel_loss", "composite", "misheard")
FACTS = ("ending", "epoch", "step", *PARTS, "exit_code")
FAILED_COLOUR, TRIAL_COLOUR, BEST_COLOUR = "tab:red", "tab:blue", "tab:orange"


# -- afterwards -------------------------------------------------------------------------------------------------------


def write_results(
    study: optuna.Study,
    directory: Path,
    exported: Callable[[FrozenTrial], dict[str, Any]],
    *,
    begins_with: Sequence[str] = (),
    pictures_until: float = math.inf,
) -> FrozenTrial | None:
    """Writes everything that the finished trials allow. -> the best one, None if none lived.

    begins_with: switches that all trials began with. pictures_until: of time.monotonic(), after which no other picture
    is begun: a busy machine draws slowly.
    """
    trials, best = finished(study), best_trial(study)
    if trials:
        write_atomic(directory / "trials.csv", trials_csv(trials))
    if best is not None:
        write_atomic(directory / "best_hparams.yaml", best_yaml(study, best, exported(best), begins_with))
        for name, figure in figures(trials, best):
            plots.save_png(figure, directory / f"{name}.png")
            if time.monotonic() >= pictures_until:
                LOG.warning("time is up while pictures are drawn; the same command draws those that are not there")
                break
        LOG.info(
            "best of %d finished trials: trial_%05d, value %.4f; %s", len(trials), origin_of(best), best.value,
            directory / "best_hparams.yaml",
        )  # fmt: skip
        if best.constraints.get("attention", 0.0) > 0:
            LOG.warning("no trial's attention formed: give them more epochs, see docs/tuning.md")
    return best


def trials_csv(trials: list[FrozenTrial]) -> str:
    """One line a finished trial: its value, its parameters, and the parts of its best validation."""
    names = sorted({name for trial in trials for name in trial.params})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", "state", "value", *FACTS, *names, "error"])
    for trial in trials:
        facts = [trial.user_attrs.get(name, "") for name in FACTS]
        values = [trial.params.get(name, "") for name in names]
        value = trial.value if trial.state == TrialState.COMPLETE else ""
        row = [origin_of(trial), trial.state.name.lower(), value, *facts, *values, trial.user_attrs.get("error", "")]
        writer.writerow(row)
    return text.getvalue()


def best_yaml(
    study: optuna.Study, best: FrozenTrial, values: Mapping[str, Any], begins_with: Sequence[str] = ()
) -> str:  # fmt: skip
    """With why, in comments."""
    trials = finished(study)
    facts, failed = best.user_attrs, sum(is_failed(trial) for trial in trials)
    pruned = sum(trial.state == TrialState.PRUNED for trial in trials)
    parts = ", ".join(f"{name} {facts[name]:.3g}" for name in PARTS if name in facts)
    lines = [
        *why_best(study, messages("search", "en")),
        f"Its parts: {parts}." if parts else "",
        f"Of {len(trials)} finished trials {pruned} were pruned and {failed} failed; report.html shows all.",
        "Use it as --hparams-file, beside the --preset and --hparams of the search.",
        f"Begin as the trials did: {shlex.join(begins_with)}" if begins_with else "",
    ]
    head = "".join(f"# {line}\n" for line in lines if line)
    return head + yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)


def figures(trials: list[FrozenTrial], best: FrozenTrial) -> Iterator[tuple[str, Figure]]:
    """By file name. Trials that failed stand at the upper edge."""
    yield "history", history_figure(trials)
    yield "slices", slices_figure(trials)
    yield "parallel", parallel_figure(trials, best)
    if shares := importances(trials):
        yield "importances", importances_figure(shares)


def _values(trials: list[FrozenTrial]) -> tuple[list[float], float]:
    """Each trial's value, and where those without a meaningful one are drawn: above all others."""
    own = [None if is_failed(t) or t.state != TrialState.COMPLETE else t.value for t in trials]
    alive = [value for value in own if value is not None]
    low, high = (min(alive), max(alive)) if alive else (0.0, WORST_VALUE)
    edge = high + 0.1 * (high - low or 1.0)
    return [edge if value is None else value for value in own], edge


def history_figure(trials: list[FrozenTrial]) -> Figure:
    """The value of every trial, and the best so far."""
    values, edge = _values(trials)
    figure = plots.new_figure(width=8.0, height=4.5)
    axes = figure.add_subplot()
    numbers = [origin_of(trial) for trial in trials]
    colours = [FAILED_COLOUR if value == edge else TRIAL_COLOUR for value in values]
    axes.scatter(numbers, values, c=colours, zorder=3)
    axes.step(numbers, np.minimum.accumulate(values), where="post", color=BEST_COLOUR, label="best so far")
    axes.scatter([], [], c=TRIAL_COLOUR, label="trial")
    if edge in values:
        axes.scatter([], [], c=FAILED_COLOUR, label="failed or pruned")
    axes.set_xlabel("trial")
    axes.set_ylabel("value (lower is better)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return figure


def importances_figure(shares: Sequence[Importance]) -> Figure:
    figure = plots.new_figure(width=8.0, height=1.5 + 0.35 * len(shares))
    axes = figure.add_subplot()
    rising = list(reversed(shares))
    ends = [[max(0.0, one.share - one.low) for one in rising], [max(0.0, one.high - one.share) for one in rising]]
    axes.barh([one.name for one in rising], [one.share for one in rising], xerr=ends, color=TRIAL_COLOUR)
    axes.set_xlabel("share of the importance (PED-ANOVA), with its 90 % interval over resampled trials")
    return figure


def slices_figure(trials: list[FrozenTrial]) -> Figure:
    """The value over each parameter; later trials are darker."""
    names = sorted({name for trial in trials for name in trial.params})
    values, _ = _values(trials)
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure = plots.new_figure(width=4.0 * columns, height=3.0 * rows)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for axes, name in zip(grid, names, strict=False):
        pairs = zip(trials, values, strict=True)
        having = [(t.params[name], value, origin_of(t)) for t, value in pairs if name in t.params]
        places, labels = _scale([point[0] for point in having])
        axes.scatter(places, [point[1] for point in having], c=[point[2] for point in having], cmap="Blues",
                     edgecolors="grey", vmin=-len(trials), vmax=len(trials))  # fmt: skip
        axes.set_xlabel(name)
        axes.grid(alpha=0.3)
        if labels is not None:
            axes.set_xticks(range(len(labels)), labels)
        elif _is_logarithmic(trials, name):
            axes.set_xscale("log")
            axes.tick_params(axis="x", which="both", labelsize="small", labelrotation=45)
    for axes in grid[len(names) :]:
        axes.set_visible(False)
    grid[0].set_ylabel("value (lower is better)")
    return figure


def parallel_figure(trials: list[FrozenTrial], best: FrozenTrial) -> Figure:
    """A line for each trial through its parameters, from their least to their greatest value, and to its value."""
    names = sorted({name for trial in trials for name in trial.params})
    values, _ = _values(trials)
    figure = plots.new_figure(width=max(8.0, 1.6 * (len(names) + 1)), height=5.0)
    axes = figure.add_subplot()
    columns = {name: _scale([t.params.get(name) for t in trials])[0] for name in names} | {"value": values}
    heights = {name: _between_0_and_1(column) for name, column in columns.items()}
    for i, trial in enumerate(trials):
        is_best = trial.number == best.number
        style: dict[str, Any] = {"color": TRIAL_COLOUR, "alpha": 0.5}
        if is_best:
            style = {"color": BEST_COLOUR, "linewidth": 2.5, "zorder": 3, "label": "best"}
        axes.plot([heights[name][i] for name in heights], marker="o", **style)
    axes.set_xticks(range(len(heights)), list(heights), rotation=30, ha="right")
    axes.set_yticks([0, 1], ["least", "greatest"])
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return figure


def _scale(values: list[Any]) -> tuple[list[float], list[str] | None]:
    """Places on an axis, and the labels of the places where they stand for choices. What is missing has no place."""
    present = [value for value in values if value is not None]
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in present):
        return [float("nan") if value is None else float(value) for value in values], None
    labels = sorted({format_value(value) for value in present})
    return [float("nan") if value is None else float(labels.index(format_value(value))) for value in values], labels


def _between_0_and_1(column: list[float]) -> np.ndarray:
    places = np.asarray(column, dtype=float)
    low, high = np.nanmin(places), np.nanmax(places)
    return (places - low) / (high - low) if high > low else np.where(np.isnan(places), np.nan, 0.5)


def _is_logarithmic(trials: list[FrozenTrial], name: str) -> bool:
    return any(getattr(trial.distributions.get(name), "log", False) for trial in trials)
