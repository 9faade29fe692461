"""Processes that die, hang or are asked to end: the training, a process that loads, one of several."""

import os
import random
import signal
import time
from functools import partial
from multiprocessing import active_children
from typing import Any

from campaigns.children import (
    ENDLESS,
    QUIET,
    SAVE_CALLS,
    Ledger,
    Toll,
    at_call,
    die,
    ends_like_undisturbed,
    in_child,
    killed_at,
    launch_s,
    newest_step,
    signalled,
)
from campaigns.table import Place, Row
from data_utils import Corpus
from hparams import HParams
from model import Tacotron2
from run_directory.metrics_log import read_jsonl
from support import faults
from support.commands import ENDLESS as PARALLEL
from support.commands import Started, wait_until, write_dataset
from support.runs import assert_same_run, trained, trainer_of
from training.trainer import Limits, Trainer

KILLS, KILLS_IN_SAVES, ROLLBACK_KILLS, SIGNALS, LOADER_KILLS = 150, 50, 20, 100, 10
HANG_S = 5  # --hang_timeout


def kills(place: Place, chance: random.Random) -> Row:
    """The same command again and again, killed at random moments, must reach the end as if nothing had happened."""
    longest_s = launch_s(place)
    deaths = [killed_at(chance.randrange(1, 4 * SAVE_CALLS)) for _ in range(place.times(KILLS_IN_SAVES))]
    n_in_saves = len(deaths)
    deaths += [signalled(chance.uniform(0.0, longest_s), signal.SIGKILL) for _ in range(place.times(KILLS))]
    chance.shuffle(deaths)
    toll = Toll(place, place.folder / "killed", deaths)
    outcome, is_kept = toll.outcome()
    fault = "kill -9 at random moments"
    return Row(fault, f"{toll.n} kills ({n_in_saves} at a system call of a save), {outcome}", is_kept)


def rollbacks(place: Place, chance: random.Random) -> Row:
    """Killed within a rollback, before each system call from its beginning on."""

    class Doomed(Trainer):
        def __init__(self, call: int, hp: HParams, model: Tacotron2, corpus: Corpus, **more: Any) -> None:
            train_step = faults.sick(faults.once(8, faults.nan_weight))(hp, model, corpus, more["device"])
            super().__init__(hp, model, corpus, train_step=train_step, **more)
            self.call = call

        def _roll_back(self, *arguments: Any) -> None:
            at_call(self.call, die)
            super()._roll_back(*arguments)

    killed = different = 0
    calls = range(1, place.times(ROLLBACK_KILLS) + 1)
    for call in calls:
        run, make = place.folder / f"rollback{call}", partial(Doomed, call)
        killed += in_child(lambda run=run, make=make: place.train(run, QUIET, 14, make_trainer=make)) == -signal.SIGKILL
        different += not ends_like_undisturbed(place, run, QUIET, 14)
    counts = f"{killed} kills at its first {len(calls)} system calls"
    outcome = f"{counts}, {different} runs that did not end like an undisturbed one"
    return Row("kill -9 within a rollback", outcome, killed == len(calls) and not different)


def signals(place: Place, chance: random.Random) -> Row:
    """SIGTERM and SIGINT at any moment: before training, in steps, validations and saves, between epochs."""
    run, longest_s, ledger = place.folder / "interrupted", launch_s(place), Ledger()
    settings = f"{QUIET},validate_interval=7,validation_attention_analysis=True,max_decoder_steps=50"
    wrong = lost = before_training = 0
    for _ in range(place.times(SIGNALS)):
        number, begun_at = chance.choice((signal.SIGTERM, signal.SIGINT)), newest_step(run)
        ledger.begin_at(begun_at)
        death = signalled(chance.uniform(0.02, 2 * longest_s), number)
        wrong += death(lambda: place.train(run, settings, ENDLESS, make_trainer=ledger.follow)) != 128 + number
        before_training += ledger.reached.value == begun_at
        lost = max(lost, ledger.reached.value - newest_step(run))
    end = newest_step(run) + 20
    is_same = ends_like_undisturbed(place, run, settings, end)
    n = place.times(SIGNALS)
    outcome = (
        f"{n} signals ({before_training} before a step was trained), exit code 143 or 130 after {n - wrong}, at most "
        f"{lost} steps lost; weights and optimiser at step {end} {'equal' if is_same else 'DIFFER FROM'} those of an "
        "undisturbed run"
    )
    return Row("SIGTERM and SIGINT at random moments", outcome, not wrong and not lost and is_same)


def loaders(place: Place, chance: random.Random) -> Row:
    """One of two processes that load batches is killed now and then."""
    n_kills = place.times(LOADER_KILLS)
    n_steps = 30 * n_kills
    straight = trained(place.hparams(), place.folder / "loaded", n_steps)
    trainer = trainer_of(place.hparams("num_workers=2"), place.folder / "unloaded", limits=Limits(max_steps=n_steps))
    killed = list[int]()

    def kill(_: object) -> None:
        if trainer.progress.step % 30 == 15:
            victim = chance.choice(active_children())
            killed.append(victim.pid or 0)
            os.kill(killed[-1], signal.SIGKILL)

    trainer.on_step = kill
    trainer.fit()
    try:
        assert trainer.seen == straight.seen
        assert_same_run(straight, trainer)
        is_same = True
    except AssertionError:
        is_same = False
    told = len(trainer.events("loader_died"))
    outcome = (
        f"{len(killed)} kills, {told} told; weights, optimiser and utterance order at step {n_steps} "
        f"{'equal' if is_same else 'DIFFER FROM'} an undisturbed run's"
    )
    return Row("kill -9 of a process that loads batches", outcome, is_same and 0 < told <= len(killed))


def hangs(place: Place, chance: random.Random) -> Row:
    """One of two processes is stopped; the launcher must notice, end it, and go on from the checkpoint."""
    took, went_on = list[float](), 0
    settings = PARALLEL.replace("iters_per_checkpoint=100000", "iters_per_checkpoint=5")
    for rank in (0, 1):
        folder = place.folder / f"hang{rank}"
        write_dataset(folder)
        started = Started(folder, place.folder / "cache", "--n_gpus", "2", "--max_restarts", "1", "--hang_timeout",
                          str(HANG_S), "train.py", "-o", "output", "-l", "logs", "--max-steps", "60", "--hparams",
                          settings)  # fmt: skip
        try:
            wait_until((folder / "output" / "checkpoints" / "step_00000010.pt").exists, started.process)
            stopped = started.find_processes()
            os.kill(stopped[rank], signal.SIGSTOP)
            began = time.monotonic()
            while started.alive():  # of the first two
                time.sleep(0.05)
            took.append(time.monotonic() - began)
            went_on += started.process.wait(timeout=180) == 0
        finally:
            started.end()
        went_on -= not any(e["kind"] == "resumed" for e in read_jsonl(folder / "output" / "events.jsonl"))
    outcome = (
        f"with --hang_timeout {HANG_S}: all processes gone {min(took):.1f} and {max(took):.1f} s later, {went_on} of "
        f"{len(took)} runs went on from the checkpoint to their end"
    )
    return Row("one of two processes stopped (SIGSTOP)", outcome, went_on == len(took) and max(took) < 60)
