"""Whether pruning decides right: `python benchmarks/pruning.py FOLDER --trials 16`

Trains so many small voices of the demo corpus to their end, drawn at random from the preset's search space but for a
wider range of rates, and records their curves in FOLDER (what is there already is not trained again). Then the search's
own pruner sees the curves in many random orders: of those that it would have ended, how many would have come among the
best quarter, and what it would have spared.
"""

import argparse
import os
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import optuna

from data_utils import Corpus
from hparams import Resolved, resolve_hparams
from run_directory.metrics_log import read_metrics
from smart_tuner import study as studies
from smart_tuner.objective import (
    LAST_RUNG_REACHED,
    Budget,
    Records,
    budget_of,
    plan_of,
    pruning_score,
    score_trial,
    validations,
)
from smart_tuner.plan import steps_per_epoch
from smart_tuner.search_space import Range, SearchSpace, search_space
from smart_tuner.trials import draw
from training.corpus_setup import read_corpus
from training.options import Options
from training.session import train

RATES = Range(3.0e-4, 3.0e-2, "log")
SMALL = (
    "symbols_embedding_dim=64,encoder_embedding_dim=64,attention_dim=32,attention_rnn_dim=128,decoder_rnn_dim=128,"
    "prenet_dim=64,postnet_embedding_dim=32,n_frames_per_step=4,use_guided_attn=True,validation_attention_analysis=True,"
    "num_workers=0,save_interval=0,keep_checkpoints=2,tensorboard_logging=False,save_attention_plots=False,"
    "mlflow_logging=False,telegram_monitoring=False,debug_reporting=False"
)
ORDERS = 300


@dataclass(frozen=True)
class Curve:
    """One training that was run to its end: the score by which trials are pruned at each rung, and its value."""

    scores: Sequence[tuple[int, float, float]]  # rung, epoch, score
    value: float
    rate: float


def settings_of(values: str = "") -> Resolved:
    return resolve_hparams(preset="demo", overrides=",".join(filter(None, [SMALL, values])))


def curves(folder: Path, n: int) -> tuple[list[Curve], Budget]:
    """Of trainings that are in the folder, or made now."""
    settings = settings_of()
    space, corpus = search_space(settings), read_corpus(settings, Options(output=folder), is_demo=True)
    hp = settings.hparams
    budget = budget_of(space.budget, epochs=hp.epochs, validate_interval=hp.validate_interval,
                       steps_per_epoch=steps_per_epoch(hp, corpus), max_steps=None)  # fmt: skip
    sampler = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1234))
    found = []
    for number in range(n):
        values = drawn(sampler.ask(), space)
        records = run_to_its_end(folder / f"run{number:02d}", values, budget, corpus)
        scores = [(budget.rung(r["epoch"]), r["epoch"], pruning_score(r)) for r in validations(records)]
        found.append(Curve(scores, score_trial(records, "finished").value, float(values["learning_rate"])))
    return found, budget


def drawn(trial: optuna.Trial, space: SearchSpace) -> dict[str, Any]:
    ranges = {**space.ranges, "learning_rate": RATES}
    return {name: draw(trial, name, studies.distribution(searched)) for name, searched in ranges.items()}


def run_to_its_end(folder: Path, values: dict[str, object], budget: Budget, corpus: Corpus) -> Records:
    """As a trial is run, but in this process."""
    text = ",".join(f"{name}={value}" for name, value in values.items())
    plan = plan_of(budget, steps_per_epoch=steps_per_epoch(settings_of(text).hparams, corpus))
    limits = f"epochs={plan.epochs},validate_interval={plan.validate_interval}"
    done = validations(read_metrics(folder))
    if not done or done[-1]["step"] < plan.max_steps:
        options = Options(output=folder, logs=folder / "logs", max_steps=plan.max_steps)
        if exit_code := train(settings_of(f"{text},{limits}"), options):
            sys.exit(exit_code)
    return read_metrics(folder)


@dataclass(frozen=True)
class Replay:
    """One order of the trials. pruned: which; spared: of the epochs of all trials."""

    pruned: frozenset[int]
    spared: float


def replay(curves: Sequence[Curve], order: Sequence[int], budget: Budget) -> Replay:
    """What the search does with trials that come in this order, one at a time (smart_tuner/trials.py)."""
    study = optuna.create_study(pruner=studies.pruner(warmup_validations=budget.warmup_validations))
    pruned, spent = set(), 0.0
    for number in order:
        trial, curve = study.ask(), curves[number]
        ended_at = _pruned_at(trial, curve, budget)
        if ended_at is None:
            study.tell(trial, curve.value)
            spent += budget.epochs
        else:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            pruned.add(number)
            spent += ended_at
    return Replay(frozenset(pruned), 1 - spent / (budget.epochs * len(order)))


def _pruned_at(trial: optuna.Trial, curve: Curve, budget: Budget) -> float | None:
    """The epoch, None where it runs to its end."""
    for rung, epoch, score in curve.scores:
        trial.report(score, rung)
        if epoch < LAST_RUNG_REACHED * budget.epochs and trial.should_prune():
            return epoch
    return None


def report(curves: Sequence[Curve], budget: Budget) -> str:
    by_value = sorted(range(len(curves)), key=lambda i: curves[i].value)
    top = set(by_value[: max(1, len(curves) // 4)])
    chance = random.Random(1234)
    replays = [replay(curves, chance.sample(range(len(curves)), len(curves)), budget) for _ in range(ORDERS)]
    n_pruned = sum(len(one.pruned) for one in replays)
    n_wrong = sum(len(one.pruned & top) for one in replays)
    lost_best = sum(by_value[0] in one.pruned for one in replays)
    spared = sum(one.spared for one in replays) / ORDERS
    lines = ["| run | rate | value | score at each rung | pruned in, % of orders |", "|---|---|---|---|---|"]
    for i in by_value:
        times = sum(i in one.pruned for one in replays)
        shown = ", ".join(f"{score:.3f}" for _, _, score in curves[i].scores)
        lines.append(f"| {i} | {curves[i].rate:.1e} | {curves[i].value:.4f} | {shown} | {100 * times / ORDERS:.0f} |")
    lines += [
        "",
        f"{len(curves)} trials, {ORDERS} orders: {n_pruned / ORDERS:.1f} pruned a search, "
        f"{100 * spared:.0f} % of the epochs spared",
        f"of the pruned {100 * n_wrong / max(1, n_pruned):.1f} % would have come among the best {len(top)}; "
        f"the best of all was pruned in {100 * lost_best / ORDERS:.1f} % of the orders",
    ]
    return "\n".join(lines)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("folder", type=Path)
    p.add_argument("--trials", type=int, default=16)
    args = p.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    print(report(*curves(args.folder, args.trials)))


if __name__ == "__main__":
    main()
