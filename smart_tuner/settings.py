"""What a search is asked to do: the switches of `train.py` that speak of it, and which of the others a trial repeats.

Imported by `train.py --help`, so neither Optuna nor torch may be imported here.
"""

import argparse
import math
import time
from dataclasses import dataclass, field
from pathlib import Path

from common.cli import int_at_least, positive
from common.errors import UserError

DEPENDENT = ("n_trials", "optimization_timeout", "n_jobs", "gpus_per_trial", "storage", "new_study", "train_best",
             "search_space", "score_words", "confirm")  # fmt: skip
REPEATED = ("preset", "hparams_file")  # with a value
CONFIRMED_FROM, CONFIRMED_BY = 10, 2  # trials, from which on the best is confirmed by so many other seeds
MOST_SPARED_S, SPARED_SHARE = 15.0, 0.1  # of the time given, for pictures and pages
PICTURES_LATE_S, MOST_LATE_S = 15.0, 20.0  # after the time given: no other picture is begun; nobody is waited for
REPEATED_FLAGS = ("skip_bad_data", "ignore_mmi_layers", "ignore_gst_layers", "ignore_tsgst_layers")


@dataclass(frozen=True)
class SearchOptions:
    """How long to search, where the study is kept, and what comes after.

    n_trials: of the whole study, earlier launches and other machines included. timeout_s: of this launch.
    storage: an Optuna RDB URL; None is SQLite in the run's own folder. is_new: an older study is moved aside. is_wide:
    config_wide.yaml is searched as well. scores_words: a recognizer hears each trial. confirm: other seeds with which
    the best and the settings are trained anew.
    began: of time.monotonic(). base_voice_s: of this launch, before its trials.
    """

    n_trials: int = 10
    timeout_s: float | None = None
    n_jobs: int = 1
    gpus_per_trial: int = 1
    storage: str | None = None
    is_new: bool = False
    train_best: bool = False
    is_wide: bool = False
    scores_words: bool = False
    confirm: int = 0
    base_voice_s: float = 0.0
    began: float = field(default_factory=time.monotonic)

    @property
    def ends_at(self) -> float:
        """Of time.monotonic(), when trials end: a little early, for what is written then."""
        spared_s = min(MOST_SPARED_S, SPARED_SHARE * (self.timeout_s or 0.0))
        return self.began + self.timeout_s - spared_s if self.timeout_s else math.inf

    @property
    def pictures_until(self) -> float:
        return self.began + self.timeout_s + PICTURES_LATE_S if self.timeout_s else math.inf

    @property
    def waits_until(self) -> float:
        """For what is behind queues: pages, MLflow."""
        return self.began + self.timeout_s + MOST_LATE_S if self.timeout_s else math.inf


@dataclass(frozen=True)
class Layers:
    """Where the hyperparameters of the command line come from, as `hparams.resolve_hparams` takes them."""

    preset: str | None = None
    hparams_file: Path | None = None
    overrides: str = ""


def add_arguments(p: argparse.ArgumentParser) -> None:
    add = p.add_argument_group("search for hyperparameters (docs/tuning.md)").add_argument
    add("--optimize-hyperparams", action="store_true", help="search for hyperparameters; the same command resumes")
    add("--n-trials", type=int_at_least(1), metavar="N", help="trials of the study, earlier ones included (default 10)")
    seconds = positive("seconds")
    add("--optimization-timeout", type=seconds, metavar="S", help="end this launch after S seconds; the next goes on")
    add("--n-jobs", type=int_at_least(1), metavar="N", help="trials that run at the same time (default 1)")
    text = "GPUs of each trial, that no other has; trains in as many processes (default 1)"
    add("--gpus-per-trial", type=int_at_least(1), metavar="N", help=text)
    add("--storage", metavar="URL", help="an Optuna database for several machines (default: study/optuna.db in -o)")
    add("--new-study", action="store_true", help="start a new search; an older study in -o is moved aside")
    add("--search-space", choices=("default", "wide"), help="wide: eight hyperparameters more (docs/tuning.md)")
    add("--score-words", action="store_true", help="a recognizer hears each trial; what it mishears counts")
    text = "train the best and the settings as they were anew with N other seeds each; a tie keeps the settings"
    add("--confirm", type=int_at_least(0), metavar="N", help=text + " (default 2 from 10 trials on, else 0)")
    add("--train-best", action="store_true", help="after the search, train in -o with the best hyperparameters")


def search_options(args: argparse.Namespace) -> SearchOptions | None:
    """None where no search is asked for. UserError where a switch has no search to speak of."""
    if not args.optimize_hyperparams:
        alone = ["--" + name.replace("_", "-") for name in DEPENDENT if _is_given(args, name)]
        if alone:
            raise UserError(f"{' and '.join(alone)} needs --optimize-hyperparams: it says how to search")
        return None
    if args.train_best and (args.gpus_per_trial or 1) > 1:
        raise UserError(
            "--train-best trains in this process, and trials have several: leave it out, then python multiproc.py "
            f"--n_gpus {args.gpus_per_trial} train.py --hparams-file STUDY/best_hparams.yaml ... trains the best"
        )
    n_trials = args.n_trials or 10
    return SearchOptions(
        n_trials=n_trials,
        timeout_s=args.optimization_timeout,
        n_jobs=args.n_jobs or 1,
        gpus_per_trial=args.gpus_per_trial or 1,
        storage=args.storage,
        is_new=args.new_study,
        train_best=args.train_best,
        is_wide=args.search_space == "wide",
        scores_words=args.score_words,
        confirm=(CONFIRMED_BY if n_trials >= CONFIRMED_FROM else 0) if args.confirm is None else args.confirm,
        began=command_began(),
    )


def _is_given(args: argparse.Namespace, name: str) -> bool:
    value = getattr(args, name)
    return value is not None and value is not False  # --confirm 0 is given


def command_began() -> float:
    """Of time.monotonic(), when this process was started: a busy machine takes seconds until it comes here."""
    import psutil  # only a search needs it

    return time.monotonic() - max(0.0, time.time() - psutil.Process().create_time())


def repeated_switches(args: argparse.Namespace) -> tuple[str, ...]:
    """What stands on every trial's command line as it stands on the search's."""
    valued = [(name, getattr(args, name)) for name in REPEATED if getattr(args, name) is not None]
    words = [word for name, value in valued for word in (_switch(name), str(value))]
    return (*words, *(_switch(name) for name in REPEATED_FLAGS if getattr(args, name)))


def _switch(name: str) -> str:
    return "--" + name.replace("_", "-")
