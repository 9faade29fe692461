"""Whether a search pays: `python benchmarks/search_strategies.py FOLDER --seed 1 --seed 2 --seed 3 --preset demo`

`--preset`, `--hparams-file`, `--hparams` and `--max-steps` are those of `train.py`. With each seed each strategy
searches as long as `--trials` whole trials take, in utterances seen, with `--by-time` in minutes of trials with the
settings as they are; what an ended trial leaves, others get.
Then the found settings are trained with other seeds, beside the settings as they were. Trainings are kept in FOLDER,
run to their end also where a strategy ends them (so that it shows what was ended), and used wherever they are asked for
again. The same command goes on; other seeds may run at the same time. `-c` begins each training with a checkpoint's
weights, as a search with `-c CHECKPOINT --warm-start` or `--from-base` does; `--score-words` as for a search, and tells
when the first trial is understood. Last the pruner is tried on all trainings of FOLDER in many random orders.
"""

import argparse
import fcntl
import hashlib
import json
import os
import random
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import optuna
from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import BaseSampler
from scipy.stats import spearmanr

from common.files import write_atomic
from evaluation.intervals import Share, estimate
from hparams import Resolved, resolve_hparams
from run_directory.metrics_log import read_metrics
from run_directory.paths import run_paths
from run_directory.reader import read_mapping
from smart_tuner import study as studies
from smart_tuner.objective import LAST_RUNG_REACHED, pruning_score, score_trial, validations
from smart_tuner.plan import Plan, make_plan
from smart_tuner.search_space import Choices, first_trial, search_space
from smart_tuner.settings import Layers
from smart_tuner.trainer_wrapper import TrialOutcome
from smart_tuner.trials import suggest
from tools import format_overrides
from training.options import Options
from training.session import train

QUIET = (
    "validation_attention_analysis=True,num_workers=0,save_interval=0,keep_checkpoints=2,tensorboard_logging=False,"
    "save_attention_plots=False,mlflow_logging=False,telegram_monitoring=False,debug_reporting=False,"
    "early_stopping=False,listen_every=0"
)
OTHER_SEEDS = (101, 102)  # of the trainings that judge what was found
NEVER = 1_000_000
N_ORDERS, N_IN_ORDER = 100, 20  # searches that the pruner is tried on: so many, each of so many trials
HEARD = "misheard.json"  # share of the characters, beside a training's records
UNDERSTOOD = (0.5, 0.2, 0.1, 0.05)  # shares of the characters misheard, at most


@dataclass(frozen=True)
class Curve:
    """One training that was run to its end. scores: epoch and pruning score by rung; lower is better. misheard: share
    of the characters, None if nobody has listened.
    """

    scores: Mapping[int, tuple[float, float]]
    value: float
    misheard: float | None
    minutes: float
    constraints: Mapping[str, float]


@dataclass(frozen=True)
class Bank:
    """Trainings by their settings: made where they are asked for first."""

    folder: Path
    plan: Plan
    layers: Layers
    begin: Path | None = None

    def curve(self, values: Mapping[str, Any], seed: int) -> Curve:
        directory = self.folder / hashlib.sha256(json.dumps([values, seed], sort_keys=True).encode()).hexdigest()[:12]
        with self._alone(directory):
            return self._curve(directory, values, seed)

    @contextmanager
    def _alone(self, directory: Path) -> Iterator[None]:
        """Waits while another process of this campaign makes the same training."""
        directory.mkdir(parents=True, exist_ok=True)
        with directory.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _curve(self, directory: Path, values: Mapping[str, Any], seed: int) -> Curve:
        plan = self.plan.trial_plan(dict(values))
        done = validations(read_metrics(directory))
        if not done or done[-1]["step"] < plan.max_steps:
            limits = {"epochs": plan.epochs, "validate_interval": plan.validate_interval, "seed": seed}
            text = ",".join((self.layers.overrides, format_overrides({**values, **limits})))
            options = Options(
                directory, directory / "logs", self.begin, warm_start=self.begin is not None, max_steps=plan.max_steps
            )  # fmt: skip
            if code := train(resolve_hparams(**{**vars(self.layers), "overrides": text}), options):
                sys.exit(code)
        if self.plan.listener is not None and self.misheard(directory) is None:
            heard = self.plan.listener.hear(TrialOutcome("finished", 0, []), directory, is_ending=lambda: False)
            write_atomic(directory / HEARD, json.dumps(heard.misheard))
        return self.read(directory)

    @staticmethod
    def misheard(directory: Path) -> float | None:
        """None if nobody has listened."""
        path = directory / HEARD
        return float(json.loads(path.read_text())) if path.exists() else None

    def read(self, directory: Path) -> Curve:
        records = read_metrics(directory)
        misheard, rung = self.misheard(directory), self.plan.budget.rung
        result = score_trial(records, "finished", misheard)
        return Curve(
            {rung(r["epoch"]): (r["epoch"], pruning_score(r)) for r in validations(records)},
            result.value,
            misheard,
            (records[-1]["time"] - records[0]["time"]) / 60,
            result.constraints,
        )


@dataclass(frozen=True)
class Strategy:
    sampler: Callable[[int, Mapping[str, Any]], BaseSampler]
    pruner: Callable[[Plan], BasePruner]


def no_pruner(_: Plan) -> BasePruner:
    return NopPruner()


def our_pruner(plan: Plan) -> BasePruner:
    return studies.pruner(warmup_validations=plan.budget.warmup_validations)


STRATEGIES = {
    "random": Strategy(lambda seed, first: studies.SeededTPE(seed, first=first, n_startup=NEVER), no_pruner),
    "TPE": Strategy(lambda seed, first: studies.SeededTPE(seed, first=first), no_pruner),
    "TPE, pruning": Strategy(lambda seed, first: studies.SeededTPE(seed, first=first), our_pruner),
}


@dataclass
class Found:
    """What one search has found. ended: curves of the trials that it ended, and beside them all that ran on, with the
    minutes of trials up to their end.
    """

    values: Mapping[str, Any]
    value: float
    n_trials: int = 0
    ended: list[Curve] = field(default_factory=list)
    whole: list[tuple[float, Curve]] = field(default_factory=list)

    def understood_after(self, share: float) -> float | None:
        """Minutes of trials until one has no more of the characters misheard; None if none has."""
        return next((m for m, curve in self.whole if curve.misheard is not None and curve.misheard <= share), None)


def search(
    strategy: Strategy, bank: Bank, *, seed: int, n_trials: int, first: Mapping[str, Any], by_time: bool
) -> Found:
    study = optuna.create_study(sampler=strategy.sampler(seed, first), pruner=strategy.pruner(bank.plan))
    spent, minutes, found = 0.0, 0.0, Found(first, float("inf"))
    whole = bank.curve(first, seed).minutes if by_time else 1.0
    while spent < (n_trials - 0.5) * whole:
        trial = study.ask()
        suggest(trial, bank.plan)
        curve = bank.curve(trial.params, seed)
        for name, value in curve.constraints.items():
            trial.set_constraint(name, value)
        found.n_trials += 1
        ended_at = epoch_of_end(trial, curve, bank.plan.budget.epochs)
        share = 1.0 if ended_at is None else ended_at / bank.plan.budget.epochs
        spent += share * (curve.minutes if by_time else 1.0)
        minutes += share * curve.minutes
        if ended_at is not None:
            found.ended.append(curve)
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            continue
        found.whole.append((minutes, curve))
        study.tell(trial, curve.value)
        if curve.value < found.value:
            found.values, found.value = dict(trial.params), curve.value
    return found


def epoch_of_end(trial: optuna.Trial, curve: Curve, epochs: float) -> float | None:
    """None where it runs on to the budget's end."""
    for rung, (epoch, score) in curve.scores.items():
        trial.report(score, rung)
        if epoch < LAST_RUNG_REACHED * epochs and trial.should_prune():
            return epoch
    return None


def report(bank: Bank, seeds: Sequence[int], n_trials: int, *, by_time: bool) -> str:
    first = first_trial(bank.plan.space, bank.plan.settings.hparams)
    plain = trained_anew(bank, first)
    lines = [
        "| strategy | trials | found value, by seed | trained anew with other seeds | mean | to them | misheard |",
        "|---|---|---|---|---|---|---|",
        f"| the settings | | | {plain.value:.4f} | {plain.value:.4f} | | {heard([plain])} |",
    ]
    for name, strategy in STRATEGIES.items():
        found = [search(strategy, bank, seed=seed, n_trials=n_trials, first=first, by_time=by_time) for seed in seeds]
        anew = [trained_anew(bank, one.values) for one in found]
        lines.append(
            f"| {name} | {', '.join(str(one.n_trials) for one in found)} | {shown(found)} | {shown(anew)} | "
            f"{statistics.mean(one.value for one in anew):.4f} | {compared(anew, plain)} | {heard(anew)} |"
        )
        lines += [f"{name}: {line}" for line in minutes_to_understanding(found)]
        lines.append(
            f"{name}, where a tie keeps the settings: {shown([one if one.beats(plain) else plain for one in anew])}"
        )
        lines += [f"{name}, seed {seed}: {one.values}" for seed, one in zip(seeds, found, strict=True)]
        lines += [f"{name}: {line}" for one in found if (line := wrongly_ended(one))]
    made = all_curves(bank)
    curves = [curve for _, curve in made]
    return "\n".join([*lines, "", *rank_correlations(curves), *pruner_tried(curves, bank), *by_setting(made, bank)])


@dataclass(frozen=True)
class Anew:
    """values: one for each of OTHER_SEEDS. misheard: share of the characters, their mean; None if nobody listened."""

    values: Sequence[float]
    misheard: float | None

    @property
    def value(self) -> float:
        return statistics.mean(self.values)

    def beats(self, other: "Anew") -> bool:
        """As `--confirm` has it: with every seed, any of the other's."""
        return max(self.values) < min(other.values)


def compared(anew: Sequence[Anew], plain: Anew) -> str:
    """Mean of the differences, each to the training of `plain` with the same seed; 95 % by bootstrap over searches."""
    shares = [Share(a - b) for one in anew for a, b in zip(one.values, plain.values, strict=True)]
    told = estimate(shares, [str(i) for i in range(len(anew)) for _ in OTHER_SEEDS])
    assert told is not None
    return f"{told.value:+.4f}" + ("" if told.low is None else f" ({told.low:+.4f} to {told.high:+.4f})")


def minutes_to_understanding(found: Sequence[Found]) -> list[str]:
    if not any(curve.misheard is not None for one in found for _, curve in one.whole):
        return []
    lines = []
    for share in UNDERSTOOD:
        times = [one.understood_after(share) for one in found]
        told = ", ".join("never" if minutes is None else f"{minutes:.1f}" for minutes in times)
        lines.append(f"minutes of trials until one has at most {share:.0%} misheard, by seed: {told}")
    return lines


def trained_anew(bank: Bank, values: Mapping[str, Any]) -> Anew:
    curves = [bank.curve(values, seed) for seed in OTHER_SEEDS]
    misheard = [curve.misheard for curve in curves if curve.misheard is not None]
    return Anew([curve.value for curve in curves], statistics.mean(misheard) if misheard else None)


def shown(some: Sequence[Found | Anew]) -> str:
    return ", ".join(f"{one.value:.4f}" for one in some)


def heard(some: Sequence[Anew]) -> str:
    return ", ".join("" if one.misheard is None else f"{100 * one.misheard:.1f} %" for one in some)


def wrongly_ended(found: Found) -> str:
    """Of the trials ended early, those that would have come among the best quarter."""
    if not found.ended:
        return ""
    values = sorted(curve.value for curve in [*found.ended, *(curve for _, curve in found.whole)])
    limit = values[max(0, len(values) // 4 - 1)]
    n_good = sum(curve.value <= limit for curve in found.ended)
    return f"{len(found.ended)} of {len(values)} ended, {n_good} of the best quarter"


def all_curves(bank: Bank) -> list[tuple[Mapping[str, Any], Curve]]:
    """With the settings, of all trainings of the bank that have reached the end; others may be at work on the rest."""
    made = [(one.parent, bank.read(one.parent)) for one in sorted(bank.folder.glob("*/metrics.jsonl"))]
    last = bank.plan.budget.rung(bank.plan.budget.epochs)
    return [(read_mapping(folder / "hparams.yaml", []), curve) for folder, curve in made if last in curve.scores]


def by_setting(made: Sequence[tuple[Mapping[str, Any], Curve]], bank: Bank) -> list[str]:
    """Of each searched setting: means by choice, or below and above its median, with the rank correlation."""
    lines = []
    for name, searched in bank.plan.space.ranges.items():
        values = [settings[name] for settings, _ in made]
        if isinstance(searched, Choices):
            groups = {f"{choice}": [c for s, c in made if s[name] == choice] for choice in searched.values}
            lines.append(f"{name}: {means(groups)}")
            continue
        middle = statistics.median(values)
        groups = {f"up to {middle:.3g}": [c for s, c in made if s[name] <= middle]}
        groups["above"] = [c for s, c in made if s[name] > middle]
        told = spearmanr(values, [curve.value for _, curve in made])
        lines.append(f"{name}: {means(groups)}; rho {told.statistic:+.2f}, p {told.pvalue:.2f}")
    return lines


def means(groups: Mapping[str, Sequence[Curve]]) -> str:
    told = []
    for name, curves in groups.items():
        misheard = [curve.misheard for curve in curves if curve.misheard is not None]
        words = f", {100 * statistics.mean(misheard):.1f} % misheard" if misheard else ""
        told += [f"{name} ({len(curves)}) {statistics.mean(c.value for c in curves):.3f}{words}"] if curves else []
    return "; ".join(told)


def rank_correlations(curves: Sequence[Curve]) -> list[str]:
    """How well the score on the way orders trials as their value at the end does."""
    lines = [f"{len(curves)} trainings, {statistics.median(c.minutes for c in curves):.2f} minutes each (median)"]
    for rung in sorted(set.intersection(*(set(c.scores) for c in curves))):
        rho = spearmanr([c.scores[rung][1] for c in curves], [c.value for c in curves]).statistic
        lines.append(f"rung {rung}: Spearman's rho {rho:.2f} to the value at the end")
    return lines


def pruner_tried(curves: Sequence[Curve], bank: Bank) -> list[str]:
    """The search's pruner on these trainings in random orders: what it ends, and what it ends wrongly."""
    dice, n_ended, n_good, spent, n_best_kept = random.Random(1), 0, 0, 0.0, 0
    n = min(N_IN_ORDER, len(curves))
    for _ in range(N_ORDERS):
        order = dice.sample(list(curves), n)
        ends = ends_of(order, bank)
        good = set(map(id, sorted(order, key=lambda curve: curve.value)[: max(1, n // 4)]))
        ended = [curve for curve, end in zip(order, ends, strict=True) if end is not None]
        n_ended, n_good = n_ended + len(ended), n_good + sum(id(curve) in good for curve in ended)
        spent += sum(bank.plan.budget.epochs if end is None else end for end in ends)
        n_best_kept += min(order, key=lambda curve: curve.value) not in ended
    whole = N_ORDERS * n
    return [
        f"the pruner, {N_ORDERS} orders of {n} trainings: {100 * n_ended / whole:.1f} % ended, {n_good} of these "
        f"{n_ended} of the best quarter; {100 * (1 - spent / whole / bank.plan.budget.epochs):.1f} % of the utterances "
        f"saved; the best of {n} was kept in {n_best_kept} of {N_ORDERS}"
    ]


def ends_of(order: Sequence[Curve], bank: Bank) -> list[float | None]:
    """By training, the epoch at which the search's pruner ends it in a search that makes them in this order."""
    study, ends = optuna.create_study(pruner=our_pruner(bank.plan)), []
    for curve in order:
        trial = study.ask()
        ends.append(epoch_of_end(trial, curve, bank.plan.budget.epochs))
        study.tell(trial, curve.value) if ends[-1] is None else study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    return ends


def bank_in(folder: Path, layers: Layers, max_steps: int | None, *, begin: Path | None, scores_words: bool) -> Bank:
    settings: Resolved = resolve_hparams(**vars(layers))
    options = Options(output=folder / "plan", logs=folder / "plan", max_steps=max_steps)
    paths = run_paths(options.output, options.logs, settings.hparams)
    plan = make_plan(layers, settings, search_space(settings), options, paths, (), scores_words=scores_words)
    return Bank(folder, plan, layers, begin)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("folder", type=Path)
    p.add_argument("--seed", type=int, action="append", required=True)
    p.add_argument("--trials", type=int, default=10)
    p.add_argument("--preset", default="demo")
    p.add_argument("--hparams-file", type=Path)
    p.add_argument("--hparams", default="")
    p.add_argument("--max-steps", type=int)
    p.add_argument("-c", "--checkpoint-path", type=Path)
    p.add_argument("--score-words", action="store_true")
    p.add_argument("--by-time", action="store_true")
    args = p.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    layers = Layers(args.preset, args.hparams_file, ",".join(filter(None, [QUIET, args.hparams])))
    bank = bank_in(
        args.folder, layers, args.max_steps, begin=args.checkpoint_path, scores_words=args.score_words
    )  # fmt: skip
    print(report(bank, args.seed, args.trials, by_time=args.by_time))


if __name__ == "__main__":
    main()
