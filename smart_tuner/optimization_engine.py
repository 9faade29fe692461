"""`train.py --optimize-hyperparams`: checks once, runs the trials that a study lacks, writes down what was found."""

import json
import logging
import math
import os
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.trial import FrozenTrial, TrialState

from common.errors import GaveUp, UserError, format_problems
from common.log import LOG
from data_utils import Corpus, plan_batches
from hparams import HParams, Resolved, field_info, resolve_hparams
from monitoring.logging_setup import configure_logging
from run_directory.paths import RunPaths, exclusive_lock, move_aside, run_paths
from run_directory.run_info import launch_id
from smart_tuner import study as studies
from smart_tuner.config_check import CONFIG, check_narrowed, check_search, file_findings
from smart_tuner.monitors.live_table import TrialProgress, live_table
from smart_tuner.monitors.results import write_results
from smart_tuner.objective import (
    LAST_RUNG_REACHED,
    Budget,
    Ending,
    Records,
    TrialPlan,
    TrialResult,
    budget_of,
    is_diverged,
    plan_of,
    pruning_score,
    score_trial,
    validations,
)
from smart_tuner.search_space import BUDGET, FIXED_BY, SearchSpace, acts, canonical_search, first_trial, search_space
from smart_tuner.settings import Layers, SearchOptions
from smart_tuner.trainer_wrapper import TrainerWrapper, TrialOutcome
from tools import format_overrides, read_yaml_layer
from training.corpus_setup import read_corpus
from training.options import Options
from training.resume import is_demo_wanted
from training.session import train
from training.trainer import StopRequest

TRAIN = Path(__file__).resolve().parents[1] / "train.py"
STUDY = "study"
# What a trial needs to be judged and to be gone on with, whatever the settings say of runs; no more disk than that; and
# no messages and no MLflow run of each: the search itself is what is looked at.
IN_EVERY_TRIAL = {
    "validation_attention_analysis": True,
    "keep_checkpoints": 2,
    "save_interval": 0,
    "mlflow_logging": False,
    "telegram_monitoring": False,
}
LOOK_EVERY_S = 0.5
WHAT_NEXT = "--n-jobs runs more trials at a time, another -o is another search"


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

    def resolve(self, values: dict[str, Any]) -> HParams:
        return resolve_hparams(**vars(self.layers), trial=values).hparams

    def trial_plan(self, values: dict[str, Any]) -> TrialPlan:
        return plan_of(self.budget, steps_per_epoch=steps_per_epoch(self.resolve(values), self.corpus))

    def trial_directory(self, number: int) -> Path:
        return self.directory / f"trial_{number:05d}"

    def command(self, number: int, values: dict[str, Any]) -> list[str]:
        """The ordinary command line of one trial."""
        plan, hp = self.trial_plan(values), self.settings.hparams
        fixed = {name: getattr(hp, name) for name, origin in self.settings.origins.items() if origin == FIXED_BY}
        own = {"epochs": plan.epochs, "validate_interval": plan.validate_interval}
        minutes = () if self.max_minutes is None else ("--max-minutes", str(self.max_minutes))
        directory = self.trial_directory(number)
        return [
            *(sys.executable, str(TRAIN), "-o", str(directory), "-l", str(self.logs / directory.name)),
            *(*self.repeated, "--max-steps", str(plan.max_steps), *minutes),
            *("--hparams", format_overrides(fixed | IN_EVERY_TRIAL | values | own)),
        ]


def optimize(layers: Layers, options: Options, search: SearchOptions, *, repeated: tuple[str, ...]) -> int:
    """The whole command: -> its exit code. Raises UserError before the first trial for what every trial would refuse,
    and GaveUp if every trial failed.
    """
    settings = resolve_hparams(**vars(layers))
    configure_logging()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    paths = run_paths(options.output, options.logs, settings.hparams)
    configure_logging(paths.log_directory)
    space = checked_space(layers, settings)
    with exclusive_lock(paths.directory, what_next=WHAT_NEXT):
        if search.is_new and (aside := move_aside(paths.directory, (STUDY,))):
            LOG.warning("searching anew; the old study is kept in %s", aside)
        plan = make_plan(layers, settings, space, options, paths, repeated)
        storage = studies.open_storage(search.storage, plan.directory)
        base = "study" if search.storage is None else str(paths.directory)
        name = studies.study_name(base, storage, is_new=search.is_new)
        study = studies.open_study(
            storage, name, seed=settings.hparams.seed, warmup_validations=plan.budget.warmup_validations
        )
        check_same_study(study, plan)
        with StopRequest() as stop:
            Search(study, storage, plan, search, stop).run()
        best = write_results(study, plan.directory, partial(best_values, plan))
    if stop.signal is not None:
        LOG.warning("interrupted; the same command goes on with this study")
        return 128 + stop.signal
    return conclude(study, plan, search, options, best)


def conclude(study: optuna.Study, plan: Plan, search: SearchOptions, options: Options, best: FrozenTrial | None) -> int:
    if best is None:
        failed = studies.finished(study)
        if failed:
            raise GaveUp(all_failed(failed, plan))
        LOG.warning("time is up before any trial has finished; the same command goes on where they stopped")
        return 0
    if not search.train_best:
        return 0
    values = best_values(plan, best)
    LOG.info("training with the best hyperparameters: %s", format_overrides(values))
    if options.max_steps is not None:  # it was meant in steps of the settings' batch size
        options = replace(options, max_steps=plan.trial_plan(best.params).max_steps)
    return train(resolve_hparams(**vars(plan.layers), trial=values), options)


def all_failed(failed: list[FrozenTrial], plan: Plan) -> str:
    problems = []
    for trial in failed:
        name, facts = plan.trial_directory(studies.trial_id_of(trial)).name, trial.user_attrs
        problems.append(f"{name}: {facts.get('ending')}: {facts.get('error')}")
    headline = f"all {len(failed)} trials failed; each one's output.log in {plan.directory} says why"
    return format_problems(problems, headline=headline)


# -- before the first trial -------------------------------------------------------------------------------------------


def checked_space(layers: Layers, settings: Resolved) -> SearchSpace:
    """The search space. UserError with everything that is wrong with it."""
    config = read_yaml_layer(CONFIG, label=CONFIG.name)
    findings = file_findings(CONFIG, config.problems)
    findings += check_search(config.search, config=CONFIG.name)
    if not findings:
        standing = {name: without_default(raw) for name, raw in canonical_search(config.search).items()}
        findings = check_narrowed("search", beside=standing, **vars(layers))
    problems = [finding.say("en") for finding in findings]
    name = "validation_attention_analysis"
    if settings.origins[name] == FIXED_BY and not settings.hparams.validation_attention_analysis:
        problems.append(f"--hparams: {name}=False: trials are judged by free-running speech; leave it out")
    if not problems:
        space = search_space(settings)
        problems = [] if space.ranges else ["--hparams fixes everything that is searched; leave something open"]
    if problems:
        raise UserError(format_problems(problems, headline=f"{len(problems)} problem(s) in what is searched"))
    return space


def without_default(raw: object) -> object:
    """A range of config.yaml: its `default` is that of hparams.py, not of a preset."""
    assert isinstance(raw, dict)
    return {key: value for key, value in raw.items() if key != "default"}


def make_plan(
    layers: Layers,
    settings: Resolved,
    space: SearchSpace,
    options: Options,
    paths: RunPaths,
    repeated: tuple[str, ...],
) -> Plan:
    """Reads and checks the data once for all trials (DataError), and says what each may spend."""
    hp = settings.hparams
    is_demo = is_demo_wanted(settings, paths.directory)
    corpus = read_corpus(settings, options, is_demo=is_demo)
    budget = budget_of(
        space.budget,
        epochs=hp.epochs,
        validate_interval=hp.validate_interval,
        steps_per_epoch=steps_per_epoch(hp, corpus),
        max_steps=options.max_steps,
    )
    directory, logs = paths.directory / STUDY, paths.log_directory
    return Plan(layers, settings, space, budget, corpus, directory, logs, repeated, options.max_minutes)


def steps_per_epoch(hp: HParams, corpus: Corpus) -> int:
    return math.ceil(len(plan_batches(corpus.train, hp).epoch(0)) / hp.gradient_accumulation_steps)


def check_same_study(study: optuna.Study, plan: Plan) -> None:
    """Values of trials compare only where all else is equal: UserError with what differs from the study's beginning."""
    hp = plan.settings.hparams
    mine = {name: value for name, value in hp.canonical().items() if not field_info(name).mutable}
    mine = {name: value for name, value in mine.items() if name not in plan.space.ranges}
    # "Interval": what the class was called when the first studies were written
    mine |= {f"search {name}": str(one).replace("Range(", "Interval(") for name, one in plan.space.ranges.items()}
    mine |= {f"budget {name}": round(value, 6) for name, value in asdict(plan.budget).items()}
    mine |= {"data": plan.corpus.fingerprint}
    mine = json.loads(json.dumps(mine))
    theirs = study.user_attrs.get("settings")
    if theirs is None:
        study.set_user_attr("settings", mine)
        study.enqueue_trial(first_trial(plan.space, hp), skip_if_exists=True)
        return
    names = [name for name in {**theirs, **mine} if theirs.get(name) != mine.get(name)]
    if names:
        absent = "nothing"
        problems = [f"{name}: {theirs.get(name, absent)} there, {mine.get(name, absent)} here" for name in names]
        ways = "Ways on: the old settings, --new-study (the old study is moved aside), another -o."
        raise UserError(
            format_problems(problems, headline=f"{plan.directory} holds a search with other settings") + f"\n{ways}"
        )


def best_values(plan: Plan, best: FrozenTrial) -> dict[str, Any]:
    """The best trial's values, with the epoch of its best score where epochs are searched."""
    searched = plan.space.budget is not None
    return {**best.params, **({BUDGET: max(1, math.ceil(best.user_attrs["epoch"]))} if searched else {})}


# -- trials -----------------------------------------------------------------------------------------------------------


class Search:
    """Runs the trials that a study still lacks, so many at a time."""

    def __init__(
        self,
        study: optuna.Study,
        storage: optuna.storages.RDBStorage,
        plan: Plan,
        search: SearchOptions,
        stop: StopRequest,
    ) -> None:
        self.study, self.storage, self.plan, self.search, self.stop = study, storage, plan, search, stop
        self.watched: dict[int, TrialProgress] = {}  # by origin, those that run here
        self.worker = f"{socket.gethostname()}:{plan.directory.resolve()}"
        self._deadline = time.monotonic() + search.timeout_s if search.timeout_s else math.inf
        self._lock = threading.Lock()  # asking and telling, one thread at a time
        self._failure: BaseException | None = None

    def run(self) -> None:
        self._reclaim()
        threads = [threading.Thread(target=self._work, args=(slot,)) for slot in range(self.search.n_jobs)]
        for thread in threads:
            thread.start()
        with live_table(self.study, self.watched, self.search.n_trials) as show:
            while any(thread.is_alive() for thread in threads):
                show()
                threads[-1].join(LOOK_EVERY_S)  # signals arrive in between
                threads = [thread for thread in threads if thread.is_alive()] or threads[-1:]
        if self._failure is not None:
            raise self._failure

    def _reclaim(self) -> None:
        """Trials that this directory's earlier search left running: it holds the lock no more, so it is dead."""
        for trial in self.study.get_trials(states=(TrialState.RUNNING,)):
            if trial.user_attrs.get("worker") == self.worker:
                self.study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
                studies.enqueue_again(self.study, trial, {"retries": trial.user_attrs.get("retries", 0)})

    def _work(self, slot: int) -> None:
        try:
            while (trial := self._ask()) is not None:
                self._run(trial, slot)
        except BaseException as failure:  # noqa: BLE001 - the border of a thread: run() raises it again
            self._failure = failure

    def _is_ending(self) -> bool:
        return self.stop.signal is not None or self._failure is not None or time.monotonic() >= self._deadline

    def _ask(self) -> optuna.Trial | None:
        """The next trial, its parameters drawn; None when the study has enough, or this launch must end."""
        with self._lock, studies.experimental_parts():
            if self._is_ending():
                return None
            optuna.storages.fail_stale_trials(self.study)
            if studies.started(self.study) >= self.search.n_trials:
                return None
            trial = self.study.ask()
            trial.set_user_attr("worker", self.worker)
            suggest(trial, self.plan)
            if studies.started(self.study) <= self.search.n_trials:
                return trial
            # another machine asked at the same time; the later one gives way
            trial.set_user_attr("withdrawn", True)
            self.study.tell(trial, state=TrialState.FAIL)
            return None

    def _run(self, trial: optuna.Trial, slot: int) -> None:
        number = studies.trial_id_of(trial)
        directory = self.plan.trial_directory(number)
        LOG.info("%s: %s", directory.name, format_overrides(trial.params))
        self.watched[number] = watched = TrialProgress(self.plan.budget.epochs)
        try:
            command = self.plan.command(number, trial.params)
        except UserError as error:  # values that don't go together: a bad trial, not the end of the search
            outcome = TrialOutcome("died", error.exit_code, [], str(error))
        else:
            wrapper = TrainerWrapper(command, directory, environment=environment(slot, self.search.n_jobs))
            outcome = wrapper.run(self._watch(trial, watched))
        with self._lock:
            studies.retry_storage(partial(self._tell, trial, outcome), time.sleep)
        del self.watched[number]
        self._drop_checkpoints()

    def _watch(self, trial: optuna.Trial, watched: TrialProgress) -> Callable[[Records], Ending | None]:
        reported: set[int] = set()
        heartbeat = TrialHeartbeat(self.storage, trial)

        def watch(records: Records) -> Ending | None:
            heartbeat.beat()
            watched.update(records)
            if self._is_ending():
                return "interrupted"
            rungs = {self.plan.budget.rung(record["epoch"]): record for record in validations(records)}
            new = {rung: record for rung, record in rungs.items() if rung not in reported}
            reported.update(new)
            for rung, record in new.items():
                studies.retry_storage(partial(trial.report, pruning_score(record), rung), time.sleep)
            if is_diverged(records):
                return "diverged"
            at_the_end = watched.epoch >= LAST_RUNG_REACHED * self.plan.budget.epochs
            return "pruned" if new and not at_the_end and trial.should_prune() else None

        return watch

    def _tell(self, trial: optuna.Trial, outcome: TrialOutcome) -> None:
        """The outcome to the study. An interrupted trial is put into the queue again."""
        frozen = self.study.get_trials(deepcopy=False)[trial.number]
        if frozen.state.is_finished():
            LOG.warning("trial %d: another machine took it for lost; its result is not used", trial.number)
            return
        if outcome.ending == "interrupted":
            self.study.tell(trial, state=TrialState.FAIL)
            studies.enqueue_again(self.study, frozen, {"retries": trial.user_attrs.get("retries", 0)})
            return
        result = score_trial(outcome.records, outcome.ending)
        describe(trial, result, outcome, told=frozen.constraints)
        name = self.plan.trial_directory(studies.trial_id_of(trial)).name
        if outcome.ending == "pruned":
            self.study.tell(trial, state=TrialState.PRUNED)
        else:
            self.study.tell(trial, result.value)
        said = outcome.error if result.is_failed else f"value={result.value:.4f} at epoch {result.epoch:.1f}"
        LOG.log(logging.WARNING if result.is_failed else logging.INFO, "%s %s: %s", name, outcome.ending, said)

    def _drop_checkpoints(self) -> None:
        """Only the best trial keeps its weights; records, pictures and sounds stay everywhere."""
        with self._lock:
            best = studies.best_trial(self.study)
            for trial in studies.finished(self.study):
                if best is None or studies.trial_id_of(trial) != studies.trial_id_of(best):
                    drop_weights(self.plan.trial_directory(studies.trial_id_of(trial)) / "checkpoints")


def drop_weights(directory: Path) -> None:
    if directory.exists():
        shutil.rmtree(directory)


def suggest(trial: optuna.Trial, plan: Plan) -> None:
    """Draws what acts; what is not searched acts with its value in the settings."""
    values = plan.settings.hparams.canonical()
    for name, searched in plan.space.ranges.items():
        if acts(name, values):
            values[name] = draw(trial, name, studies.distribution(searched))


def draw(trial: optuna.Trial, name: str, distribution: optuna.distributions.BaseDistribution) -> Any:
    if isinstance(distribution, optuna.distributions.CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    if isinstance(distribution, optuna.distributions.IntDistribution):
        return trial.suggest_int(name, distribution.low, distribution.high)
    assert isinstance(distribution, optuna.distributions.FloatDistribution)
    return trial.suggest_float(name, distribution.low, distribution.high, log=distribution.log)


def describe(trial: optuna.Trial, result: TrialResult, outcome: TrialOutcome, *, told: Mapping[str, float]) -> None:
    """Everything about the trial that its value doesn't say, so that a table can be made of the database alone."""
    facts: dict[str, Any] = {"ending": outcome.ending, "failed": result.is_failed, "exit_code": outcome.exit_code}
    facts |= {"epoch": result.epoch, "step": result.step, **result.parts}
    if outcome.error:
        facts["error"] = outcome.error
    for name, value in facts.items():
        trial.set_user_attr(name, value)
    for name, value in result.constraints.items():
        if name not in told:  # by an attempt that the database cut short
            trial.set_constraint(name, value)


class TrialHeartbeat:
    """Tells the database that the trial lives. Optuna's own thread ends silently at the first error; this one tries
    again at the next beat.
    """

    def __init__(self, storage: optuna.storages.RDBStorage, trial: optuna.Trial) -> None:
        self._storage, self._id, self._next = storage, trial._trial_id, 0.0

    def beat(self) -> None:
        if time.monotonic() < self._next:
            return
        try:
            self._storage.record_heartbeat(self._id)
            self._next = time.monotonic() + studies.HEARTBEAT_S / 2
        except studies.STORAGE_ERRORS as error:
            LOG.warning("no heartbeat: %s", error)
            self._next = time.monotonic() + 5


def environment(slot: int, n_jobs: int) -> dict[str, str]:
    """Ours, with this slot's share of the processors and its GPU; one launch for all restarts of a trial."""
    shared = {"TACOTRON2_LAUNCH_ID": launch_id()}
    if n_jobs > 1:
        shared["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // n_jobs))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = visible.split(",") if visible else [str(i) for i in range(torch.cuda.device_count())]
    if devices:
        shared["CUDA_VISIBLE_DEVICES"] = devices[slot % len(devices)]
    return dict(os.environ) | shared
