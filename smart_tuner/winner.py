"""The best trial and what comes of it: its values for a run of its own, and its checkpoints where that is fair."""

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from checkpointing import directory as checkpoint_dir
from common.files import explain_write_errors
from common.log import LOG
from config.hparams_diff import differences
from hparams import HParams
from run_directory.paths import move_aside
from run_directory.reader import read_mapping
from smart_tuner.plan import Plan
from smart_tuner.search_space import BUDGET
from smart_tuner.trial_queue import origin_of

ADOPTED = ("checkpoints", "samples", "alignments", "events.jsonl", "metrics.jsonl", "hparams.yaml", "run.json")


def best_values(plan: Plan, best: FrozenTrial, *, spent: Mapping[str, float]) -> dict[str, Any]:
    """The best trial's values, with the epoch of its best score where epochs are searched. spent: the study's budget.

    Where the time given has shortened trials, all epochs that were meant: no trial has seen how many are good. The
    trials of a preset or file with a range of its own are samples of a longer training: its length is the settings'.
    """
    if plan.space.budget is None or BUDGET in plan.settings.search:
        return dict(best.params)
    is_cut_short = spent.get("epochs", plan.budget.epochs) < plan.budget.epochs
    epochs = plan.budget.epochs if is_cut_short else float(best.user_attrs["epoch"])
    return {**best.params, "epochs": max(1, math.ceil(epochs))}


def adopt(plan: Plan, best: FrozenTrial, hp: HParams, output: Path, *, is_fresh: bool) -> None:
    """The winner's run becomes the run in `output`, which goes on with it, where that is the same as beginning anew:
    the trial ran on this machine with the same settings, and `output` holds no run of its own.
    """
    trial = plan.trial_directory(origin_of(best))
    reason = _reason_against(trial, hp, output, is_fresh=is_fresh)
    if reason is not None:
        LOG.info("not going on from the checkpoint of %s: %s", trial.name, reason)
        return
    with explain_write_errors(f"to {output}", next_step="free space there, then give the same command again"):
        for name in ADOPTED:
            if (trial / name).is_dir():
                shutil.copytree(trial / name, output / name, dirs_exist_ok=True)
            elif (trial / name).exists():
                shutil.copyfile(trial / name, output / name)
    LOG.info("going on from the newest checkpoint of %s, which was trained with these very settings", trial.name)


def make_way(hp: HParams, output: Path) -> None:
    """The run of an earlier best, or any other that `hp` can't go on with, is moved aside."""
    if not checkpoint_dir.all_checkpoints(output / "checkpoints") or not _changes(output, hp):
        return
    if aside := move_aside(output):
        LOG.warning("%s held a run with other settings; it is kept in %s", output, aside)


def _changes(directory: Path, hp: HParams) -> list[str]:
    """What the run there has otherwise than `hp`, of what can't be changed on the way."""
    saved = read_mapping(directory / "hparams.yaml", [])
    found = differences(hp.model_copy(update={"n_symbols": saved.get("n_symbols", hp.n_symbols)}), saved)
    return [line for group in found.values() for line in group]


def _reason_against(trial: Path, hp: HParams, output: Path, *, is_fresh: bool) -> str | None:
    if is_fresh:
        return "--fresh asks to begin anew"
    if checkpoint_dir.all_checkpoints(output / "checkpoints"):
        return f"{output} holds a run already"
    if checkpoint_dir.newest_good(trial / "checkpoints") is None:
        return "it is not here; the trial ran on another machine, or its checkpoints were removed"
    changed = _changes(trial, hp)
    return f"settings differ ({'; '.join(changed)})" if changed else None
