"""What all trials of a study have in common: settings, data, budget, places; and the command line of each."""

import math
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from data_utils import Corpus, plan_batches
from hparams import HParams, Resolved, resolve_hparams
from run_directory.paths import RunPaths
from smart_tuner.objective import Budget, TrialPlan, budget_of, plan_of
from smart_tuner.search_space import FIXED_BY, SearchSpace
from smart_tuner.settings import Layers
from smart_tuner.trial_queue import trial_name
from smart_tuner.trial_words import TrialListener
from tools import format_overrides
from training.corpus_setup import read_corpus
from training.options import Options
from training.resume import is_demo_wanted

TRAIN = Path(__file__).resolve().parents[1] / "train.py"
LAUNCHER = TRAIN.with_name("multiproc.py")
STUDY = "study"
# What a trial needs to be judged and to be gone on with, whatever the settings say of runs; no more disk than that; and
# no messages and no MLflow run of each: the search itself is what is looked at.
IN_EVERY_TRIAL = {
    "validation_attention_analysis": True,
    "keep_checkpoints": 2,
    "save_interval": 0,
    "listen_every": 0,
    "mlflow_logging": False,
    "telegram_monitoring": False,
}


@dataclass(frozen=True)
class Plan:
    """Everything that stays the same for all trials of a study."""

    layers: Layers
    settings: Resolved
    space: SearchSpace
    budget: Budget
    corpus: Corpus
    directory: Path  # of the study
    logs: Path
    repeated: tuple[str, ...]
    max_minutes: float | None = None
    may_shrink: bool = False  # the budget, where time is short: nobody has set it
    gpus_per_trial: int = 1
    listener: TrialListener | None = None
    begins_with: tuple[str, ...] = ()  # switches: the checkpoint that all trials begin with

    def resolve(self, values: dict[str, Any]) -> HParams:
        return resolve_hparams(**vars(self.layers), trial=values).hparams

    def trial_plan(self, values: dict[str, Any]) -> TrialPlan:
        return plan_of(self.budget, steps_per_epoch=self.steps_per_epoch(values))

    def steps_per_epoch(self, values: dict[str, Any]) -> int:
        return steps_per_epoch(self.resolve(values), self.corpus, n_processes=self.gpus_per_trial)

    def trial_directory(self, number: int) -> Path:
        return self.directory / trial_name(number)

    def command(
        self, directory: Path, values: dict[str, Any], *, own: TrialPlan | None = None, seed: int | None = None
    ) -> list[str]:
        """The ordinary command line of one trial. own: in place of its share of the budget; seed: of the settings'."""
        plan, hp = own or self.trial_plan(values), self.settings.hparams
        fixed = {name: getattr(hp, name) for name, origin in self.settings.origins.items() if origin == FIXED_BY}
        limits = {"epochs": plan.epochs, "validate_interval": plan.validate_interval}
        minutes = () if self.max_minutes is None else ("--max-minutes", str(self.max_minutes))
        seeds = {} if seed is None else {"seed": seed}
        n_gpus = self.gpus_per_trial
        launcher = () if n_gpus == 1 else (str(LAUNCHER), "--n_gpus", str(n_gpus))
        return [
            *(sys.executable, *launcher, str(TRAIN), "-o", str(directory), "-l", str(self.logs / directory.name)),
            *(*self.repeated, *self.begins_with, "--max-steps", str(plan.max_steps), *minutes),
            *("--hparams", format_overrides(fixed | IN_EVERY_TRIAL | values | limits | seeds)),
        ]


def make_plan(
    layers: Layers,
    settings: Resolved,
    space: SearchSpace,
    options: Options,
    paths: RunPaths,
    repeated: tuple[str, ...],
    *,
    gpus_per_trial: int = 1,
    scores_words: bool = False,
) -> Plan:
    """Reads and checks the data once for all trials (DataError), and says what each may spend."""
    hp = settings.hparams
    is_demo = is_demo_wanted(settings, paths.directory)
    corpus = read_corpus(settings, options, is_demo=is_demo)
    whole = partial(
        budget_of,
        space.budget,
        epochs=hp.epochs,
        validate_interval=hp.validate_interval,
        steps_per_epoch=steps_per_epoch(hp, corpus, n_processes=gpus_per_trial),
    )
    budget = whole(max_steps=options.max_steps)
    directory, logs = paths.directory / STUDY, paths.log_directory
    is_shorter = budget != whole(max_steps=None) or options.max_minutes is not None
    is_set = is_shorter or settings.origins["epochs"] == FIXED_BY
    return Plan(
        layers, settings, space, budget, corpus, directory, logs, repeated, options.max_minutes, may_shrink=not is_set,
        gpus_per_trial=gpus_per_trial, listener=TrialListener.of(corpus) if scores_words else None,
    )  # fmt: skip


def steps_per_epoch(hp: HParams, corpus: Corpus, *, n_processes: int = 1) -> int:
    """Each process takes batch_size utterances a step."""
    n_batches = len(plan_batches(corpus.train, hp, n_parts=n_processes).epoch(0))
    return math.ceil(n_batches / hp.gradient_accumulation_steps)
