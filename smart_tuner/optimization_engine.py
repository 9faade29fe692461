"""`train.py --optimize-hyperparams`: checks once, runs the trials that a study lacks, writes down what was found."""

import json
import shlex
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial

from checkpointing import checkpoint_file
from checkpointing.checkpoint_file import sha256_of
from common.cli import expect_foreign_threads
from common.errors import GaveUp, TimeIsUp, UserError, format_problems
from common.files import explain_write_errors
from common.log import LOG
from hparams import HParams, Resolved, field_info, resolve_hparams
from monitoring.logging_setup import configure_logging
from run_directory.paths import exclusive_lock, move_aside, run_paths
from smart_tuner import study as studies
from smart_tuner import time_plan
from smart_tuner.config_check import CONFIG, Finding, check_narrowed, check_search, file_findings
from smart_tuner.confirmation import Confirmation
from smart_tuner.monitors.news import StudyNews
from smart_tuner.monitors.results import write_results
from smart_tuner.monitors.setup import study_observers
from smart_tuner.plan import STUDY, Plan, make_plan
from smart_tuner.search_space import FIXED_BY, WIDE, SearchSpace, first_trial, search_space, standing_ranges
from smart_tuner.settings import Layers, SearchOptions
from smart_tuner.slots import check_gpus, visible_gpus
from smart_tuner.storage import check_address, open_storage
from smart_tuner.trial_queue import origin_of
from smart_tuner.trials import Search
from smart_tuner.winner import adopt, best_values, make_way
from smart_tuner.worker import MAKE_ROOM
from tools import format_overrides, read_yaml_layer
from training.base_voice import base_recipe, base_voice
from training.options import Options
from training.resume import chosen_checkpoint
from training.session import train
from training.trainer import StopRequest

CONFIRM_HINT = (
    "each trial is one seed, so the best may be the luckiest: --confirm 2 trains it and the settings as they were anew "
    "with two other seeds each, and a tie keeps the settings"
)
WHAT_NEXT = "--n-jobs runs more trials at a time, another -o is another search"


def optimize(layers: Layers, options: Options, search: SearchOptions, *, repeated: tuple[str, ...]) -> int:
    """The whole command: -> its exit code. Raises UserError before the first trial for what every trial would refuse,
    and GaveUp if every trial failed.
    """
    settings = resolve_hparams(**vars(layers))
    check_gpus(visible_gpus(), n_jobs=search.n_jobs, each=search.gpus_per_trial)
    configure_logging()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    paths = run_paths(options.output, options.logs, settings.hparams)
    configure_logging(paths.log_directory)
    space = checked_space(layers, settings, is_wide=search.is_wide)
    options = with_named_checkpoint(options)
    if search.storage is not None:
        check_address(search.storage)  # before the corpus is read, which may take an hour
    with exclusive_lock(paths.directory, what_next=WHAT_NEXT):
        if search.is_new and (aside := move_aside(paths.directory, (STUDY,))):
            LOG.warning("searching anew; the old study is kept in %s", aside)
        plan = make_plan(
            layers, settings, space, options, paths, repeated,
            gpus_per_trial=search.gpus_per_trial, scores_words=search.scores_words,
        )  # fmt: skip
        storage = open_storage(search.storage, plan.directory)
        base = "study" if search.storage is None else str(paths.directory)
        name = studies.study_name(base, storage, is_new=search.is_new)
        study = studies.open_study(
            storage,
            name,
            seed=settings.hparams.seed,
            first=first_trial(space, settings.hparams),
            warmup_validations=plan.budget.warmup_validations,
        )
        check_same_study(study, plan, begins_with=beginning_of(settings.hparams, options))
        began = time.monotonic()
        try:
            options = with_base_voice(plan, options, ends_at=search.ends_at)
        except TimeIsUp:
            LOG.warning("time is up before the base voice is made; %s goes on with it", same_command(search))
            return 0
        plan = replace(plan, begins_with=beginning_switches(options))
        search = replace(search, base_voice_s=time.monotonic() - began)
        with StopRequest() as stop:
            best = run_search(study, storage, plan, search, stop)
    if stop.signal is not None:
        LOG.warning("interrupted; %s goes on with this study", same_command(search))
        return 128 + stop.signal
    return conclude(study, plan, search, options, best)


def same_command(search: SearchOptions) -> str:
    return "the same command without --new-study" if search.is_new else "the same command"


def run_search(
    study: optuna.Study,
    storage: RDBStorage,
    plan: Plan,
    search: SearchOptions,
    stop: StopRequest,
) -> FrozenTrial | None:
    """Runs what is lacking, writes what was found, and tells whoever watches. -> the best trial, None if none lived."""
    news = StudyNews(study, plan, study_observers(study, plan, n_trials=search.n_trials), n_trials=search.n_trials)
    try:
        news.start()
        trials = Search(study, storage, plan, search, stop, news=news)
        trials.run_all()
        if search.confirm and stop.signal is None and len(studies.finished(study)) >= search.n_trials:
            written(study, plan, search)  # confirming takes long
            Confirmation(study, storage, trials.plan, search, stop).run()
        best = written(study, plan, search)
        late = "time" if time.monotonic() >= search.ends_at else "done"
        if late == "time":
            expect_foreign_threads()  # the interpreter's orderly end takes seconds, too, where all is busy
        news.end("signal" if stop.signal is not None else late)
    except BaseException as error:  # noqa: BLE001 - whoever watches hears of it; it is raised again
        news.end("error", str(error) or type(error).__name__)
        raise
    finally:
        news.close(until=search.waits_until)
    return best


def written(study: optuna.Study, plan: Plan, search: SearchOptions) -> FrozenTrial | None:
    """What was found is written down. -> the best trial, None if none lived."""
    exported = partial(best_values, plan, spent=spent_budget(study))
    with explain_write_errors(f"to {plan.directory}", next_step=MAKE_ROOM):
        return write_results(
            study, plan.directory, exported, begins_with=plan.begins_with, pictures_until=search.pictures_until
        )  # fmt: skip


def conclude(study: optuna.Study, plan: Plan, search: SearchOptions, options: Options, best: FrozenTrial | None) -> int:
    if best is None:
        failed = studies.finished(study)
        if failed:
            raise GaveUp(all_failed(failed, plan))
        LOG.warning(
            "time is up before any trial has finished; %s goes on where they stopped", same_command(search)
        )  # fmt: skip
        return 0
    if (done := len(studies.finished(study))) < search.n_trials:
        LOG.warning("time is up with %d of %d trials finished; %s goes on with the others", done, search.n_trials,
                    same_command(search))  # fmt: skip
    elif search.confirm and studies.is_open(study, n_seeds=search.confirm):
        LOG.warning("time is up before the best is confirmed; %s goes on with it", same_command(search))
    if search.gpus_per_trial > 1:
        begins_with = "".join(f" {shlex.quote(word)}" for word in plan.begins_with)
        file = shlex.quote(str(plan.directory / "best_hparams.yaml"))
        LOG.info("the same with the best: python multiproc.py --n_gpus %d train.py --hparams-file %s%s ...",
                 search.gpus_per_trial, file, begins_with)  # fmt: skip
    if not search.confirm and studies.is_open(study, n_seeds=0):
        LOG.info(CONFIRM_HINT)
    if not search.train_best:
        return 0
    values = best_values(plan, best, spent=spent_budget(study))
    LOG.info("training with the best hyperparameters: %s", format_overrides(values))
    if options.max_steps is not None:  # it was meant in steps of the settings' batch size
        share = plan.steps_per_epoch(best.params) / plan.steps_per_epoch({})
        options = replace(options, max_steps=max(1, round(options.max_steps * share)))
    settings = resolve_hparams(**vars(plan.layers), trial=values)
    with exclusive_lock(plan.directory.parent, what_next=WHAT_NEXT):
        make_way(settings.hparams, plan.directory.parent)
        adopt(plan, best, settings.hparams, plan.directory.parent, is_fresh=options.fresh)
    return train(settings, options)


def spent_budget(study: optuna.Study) -> Mapping[str, float]:
    return study.user_attrs.get(time_plan.ATTRIBUTE, {})


def all_failed(failed: list[FrozenTrial], plan: Plan) -> str:
    problems = []
    for trial in failed:
        name, facts = plan.trial_directory(origin_of(trial)).name, trial.user_attrs
        problems.append(f"{name}: {facts.get('ending')}: {facts.get('error')}")
    headline = f"all {len(failed)} trials failed; each one's output.log in {plan.directory} says why"
    return format_problems(problems, headline=headline)


# -- before the first trial -------------------------------------------------------------------------------------------


def checked_space(layers: Layers, settings: Resolved, *, is_wide: bool = False) -> SearchSpace:
    """The search space. UserError with everything that is wrong with it."""
    configs, findings = (CONFIG, WIDE) if is_wide else (CONFIG,), list[Finding]()
    for path in configs:
        config = read_yaml_layer(path, label=path.name)
        findings += file_findings(path, config.problems)
        findings += check_search(config.search, config=path.name)
    if not findings:
        standing = {name: without_default(raw) for name, raw in standing_ranges(configs).items()}
        findings = check_narrowed("search", beside=standing, **vars(layers))
    problems = [finding.say("en") for finding in findings]
    name = "validation_attention_analysis"
    if settings.origins[name] == FIXED_BY and not settings.hparams.validation_attention_analysis:
        problems.append(f"--hparams: {name}=False: trials are judged by free-running speech; leave it out")
    if not problems:
        space = search_space(settings, configs=configs)
        problems = [] if space.ranges else ["--hparams fixes everything that is searched; leave something open"]
    if problems:
        raise UserError(format_problems(problems, headline=f"{len(problems)} problem(s) in what is searched"))
    return space


def without_default(raw: object) -> object:
    """A range of config.yaml: its `default` is that of hparams.py, not of a preset."""
    assert isinstance(raw, dict)
    return {key: value for key, value in raw.items() if key != "default"}


def with_base_voice(plan: Plan, options: Options, *, ends_at: float) -> Options:
    """--from-base as the -c and --warm-start that it stands for: one base, of the settings, for all trials.

    TimeIsUp where it isn't made when time is up.
    """
    if options.base_steps is None:
        return options
    base = base_voice(plan.settings.hparams, plan.corpus, steps=options.base_steps, ends_at=ends_at)
    return replace(options, checkpoint=base, warm_start=True, base_steps=None)


def with_named_checkpoint(options: Options) -> Options:
    """The file that -c names now: a run that trains on must not begin one trial otherwise than another."""
    if options.checkpoint is None:
        return options
    path = chosen_checkpoint(options.checkpoint).resolve()
    if not options.warm_start and checkpoint_file.read_voice(path) is not None:
        raise UserError(
            f"-c {options.checkpoint} without --warm-start would go on with its steps, settings and optimizer in every "
            "trial; add --warm-start to take its weights as a beginning"
        )
    return replace(options, checkpoint=path)


def beginning_switches(options: Options) -> tuple[str, ...]:
    if options.checkpoint is None:
        return ()
    return ("-c", str(options.checkpoint), *(("--warm-start",) if options.warm_start else ()))


def beginning_of(hp: HParams, options: Options) -> str | None:
    """Another machine's base voice is not this one's to the bit, and made in the same way."""
    if options.base_steps is not None:
        return f"a base voice {base_recipe(hp, steps=options.base_steps)} of {options.base_steps} steps"
    return None if options.checkpoint is None else f"a checkpoint of SHA-256 {sha256_of(options.checkpoint)[:12]}"


def check_same_study(study: optuna.Study, plan: Plan, *, begins_with: str | None = None) -> None:
    """Values of trials compare only where all else is equal: UserError with what differs from the study's beginning."""
    hp = plan.settings.hparams
    mine = {name: value for name, value in hp.canonical().items() if not field_info(name).mutable}
    mine = {name: value for name, value in mine.items() if name not in plan.space.ranges}
    # "Interval": what the class was called when the first studies were written
    mine |= {f"search {name}": str(one).replace("Range(", "Interval(") for name, one in plan.space.ranges.items()}
    mine |= {f"budget {name}": round(value, 6) for name, value in asdict(plan.budget).items()}
    mine |= {"data": plan.corpus.fingerprint}
    if plan.gpus_per_trial > 1:
        mine |= {"--gpus-per-trial": plan.gpus_per_trial}  # as many times batch_size utterances a step
    if plan.listener is not None:
        mine |= {"--score-words": True}
    if begins_with is not None:
        mine |= {"trials begin with": begins_with}
    mine = json.loads(json.dumps(mine))
    theirs = study.user_attrs.get("settings")
    if theirs is None:
        study.set_user_attr("settings", mine)
        theirs = study.user_attrs["settings"]  # perhaps another machine's, which began at the same time
    names = [name for name in {**theirs, **mine} if theirs.get(name) != mine.get(name)]
    if names:
        absent = "nothing"
        problems = [f"{name}: {theirs.get(name, absent)} there, {mine.get(name, absent)} here" for name in names]
        ways = "Use the old settings, --new-study (the old study is moved aside) or another -o."
        raise UserError(
            format_problems(problems, headline=f"{plan.directory} holds a search with other settings") + f"\n{ways}"
        )
