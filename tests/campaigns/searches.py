"""Searches whose workers are killed: on SQLite and on a real PostgreSQL, in their own and in other directories."""

import os
import random
import signal
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from optuna.trial import FrozenTrial, TrialState

import smart_tuner.plan
import smart_tuner.worker
from campaigns.children import quiet_child
from campaigns.table import Place, Row
from smart_tuner import storage as storages
from smart_tuner.optimization_engine import optimize
from smart_tuner.settings import Layers, SearchOptions
from smart_tuner.trial_queue import DONE, origin_of
from support import postgres
from support.corpora import tiny_settings
from support.paths import REPOSITORY
from training.options import Options

WORKERS, KILLS, TRIALS = 4, 100, 140
CONFIRM = 40  # other seeds for each of two, and as many kills
NOT_SEARCHED = ("batch_size", "warmup_steps", "validation_attention_analysis", "epochs")
STUDY = "output"  # -o as it is typed on each machine
WORSE = "worse.yaml"  # settings that are not the best: the stand-in likes a rate of 1e-3
AGAIN = 0.5  # of the killed workers start again where they were; others are lost with their machine
LONGEST_LIFE = 4.0  # of the killed, in times of what a worker takes to begin its first trial
ENOUGH_S = 1800.0


@dataclass(frozen=True)
class Worker:
    """folder: the machine that it is on. dies_at: of time.monotonic()."""

    folder: Path
    dies_at: float


@dataclass
class KilledSearch:
    """Workers of one study that die and are replaced, and what their database says meanwhile."""

    url: str
    corpus: Path
    folder: Path
    n_workers: int
    n_trials: int
    confirm: int = 0
    workers: dict[int, Worker] = field(default_factory=dict)  # by process id
    startup_s: float = 0.0  # until a worker's first trial runs, measured
    n_machines: int = 0
    n_kills: int = 0
    wrong_exits: list[int] = field(default_factory=list)
    lost: int = 0  # finished trials that were others, or none, when looked at again
    finished: dict[tuple[str, int], float | None] = field(default_factory=dict)  # by study and number

    def run(self, n_kills: int, chance: random.Random) -> None:
        began = time.monotonic()
        self.start(chance)
        while self.workers and not any(self.folder.glob("machine*/output/study/trial_*/launches")):
            time.sleep(0.05)
            self.collect()
        self.startup_s = time.monotonic() - began
        for _ in range(1, self.n_workers):
            self.start(chance)
        while self.workers and time.monotonic() < began + ENOUGH_S:
            time.sleep(0.02)
            self.collect()
            for pid, worker in list(self.workers.items()):
                if self.n_kills < n_kills and time.monotonic() >= worker.dies_at:
                    self.kill(pid, chance)
        for pid in self.workers:  # they did not end
            os.kill(pid, signal.SIGKILL)
            self.wrong_exits.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        self.look()

    def start(self, chance: random.Random, folder: Path | None = None) -> None:
        """A worker that will die while it starts, works or waits."""
        if folder is None:
            folder = self.folder / f"machine{self.n_machines}"
            self.n_machines += 1
            folder.mkdir(parents=True)
        dies_at = time.monotonic() + LONGEST_LIFE * self.startup_s * chance.random()
        self.workers[quiet_child(lambda: self.work(folder))] = Worker(folder, dies_at)

    def work(self, folder: Path) -> int:
        """What the ordinary command does, with trials of a stand-in that take half a second."""
        os.chdir(folder)
        os.environ["STAND_IN"] = "slow"
        smart_tuner.plan.TRAIN = REPOSITORY / "tests/support/fake_trainer.py"
        storages.HEARTBEAT_S, storages.GRACE_S, smart_tuner.worker.LOOK_FOR_WORK_S = 1, 6, 0.3
        given = tiny_settings(self.corpus).split(",")
        overrides = ",".join(pair for pair in given if pair.split("=")[0] not in NOT_SEARCHED)
        search = SearchOptions(n_trials=self.n_trials, storage=self.url, confirm=self.confirm)
        options = Options(output=Path(STUDY), logs=Path("logs"), max_steps=10)
        Path(WORSE).write_text("learning_rate: 3.0e-3\n")
        try:
            return optimize(Layers(hparams_file=Path(WORSE), overrides=overrides), options, search, repeated=())
        except BaseException:
            (folder / "traceback.txt").write_text(traceback.format_exc())
            raise

    def kill(self, pid: int, chance: random.Random) -> None:
        os.kill(pid, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        worker = self.workers.pop(pid)
        if code != -signal.SIGKILL:  # it ended by itself in that moment
            self.wrong_exits += [code] if code else []
            return
        self.n_kills += 1
        self.look()
        self.start(chance, worker.folder if chance.random() < AGAIN else None)

    def collect(self) -> None:
        for pid in list(self.workers):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                del self.workers[pid]
                if code := os.waitstatus_to_exitcode(status):
                    self.wrong_exits.append(code)

    def look(self) -> None:
        """What was finished must stay so."""
        now = {(name, one.number): one.value for name, some in self.trials().items() for one in some if is_done(one)}
        self.lost += sum(now.get(key, "none") != value for key, value in self.finished.items())
        self.finished = now

    def trials(self) -> dict[str, list[FrozenTrial]]:
        """By study: the search's, and those of what confirms."""
        storage = storages.open_storage(self.url, self.folder)
        try:
            return {one.study_name: storage.get_all_trials(one._study_id) for one in storage.get_all_studies()}
        finally:
            storage.engine.dispose()  # the next child must not inherit a connection

    def outcome(self) -> tuple[str, bool]:
        found = self.trials()
        done = Counter((name, origin_of(one)) for name, some in found.items() for one in some if is_done(one))
        doubled = sum(n - 1 for n in done.values())
        every = [trial for some in found.values() for trial in some]
        open_ = sum(trial.state in (TrialState.RUNNING, TrialState.WAITING) for trial in every)
        given_up = sum(trial.user_attrs.get("ending") == "lost" for trial in every)
        wanted = self.n_trials + 2 * self.confirm
        text = (
            f"{self.n_kills} kills of {self.n_machines} machines' workers: {len(done)} of {wanted} trials "
            f"finished ({given_up} given up, as killed three times), {self.lost} finished ones lost, {doubled} "
            f"doubled, {open_} left running or waiting, {len(self.wrong_exits)} workers ended otherwise than by 0"
        )
        text += "".join(f"; {path.read_text().splitlines()[-1]}" for path in self.folder.glob("*/traceback.txt"))
        seeds = {run.name for run in self.folder.glob("machine*/output/study/confirm_*")}
        is_whole = len(done) == wanted and len(seeds) == 2 * self.confirm
        return text, is_whole and not (self.lost or doubled or open_ or self.wrong_exits)


def is_done(trial: FrozenTrial) -> bool:
    return trial.state in DONE


def killed(place: Place, chance: random.Random, url: str, name: str, *, n_workers: int = WORKERS) -> Row:
    search = KilledSearch(url, place.corpus, place.folder / name, n_workers, place.times(TRIALS))
    return row(search, chance, place.times(KILLS), f"kill -9 of {n_workers} workers of a search, {name}")


def confirmations(place: Place, chance: random.Random) -> Row:
    """A short search, so that most kills fall on what confirms its best."""
    url, n_trials, confirm = f"sqlite:///{place.folder}/confirming.db", 10, place.times(CONFIRM)
    search = KilledSearch(url, place.corpus, place.folder / "confirming", WORKERS, n_trials, confirm)
    return row(search, chance, place.times(CONFIRM), f"kill -9 of {WORKERS} workers that confirm the best, SQLite")


def row(search: KilledSearch, chance: random.Random, n_kills: int, name: str) -> Row:
    search.run(n_kills, chance)
    text, is_kept = search.outcome()
    return Row(name, text, is_kept and search.n_kills == n_kills)


def searches(place: Place, chance: random.Random) -> list[Row]:
    """The same command again and again on several machines, killed at random moments."""
    rows = [killed(place, chance, f"sqlite:///{place.folder}/shared.db", "SQLite")]
    if reason := postgres.missing():
        return [*rows, Row("kill -9 of workers of a search, PostgreSQL", f"not run: {reason}", True)]
    with postgres.server() as url:
        return [*rows, killed(place, chance, url, "PostgreSQL")]
