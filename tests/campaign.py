"""Fault campaigns on a tiny model: `python tests/campaign.py` runs all and prints the table of docs/reliability.md.

Children are forked from a process that has imported everything, so that two hundred of them take minutes; each runs the
ordinary command with the ordinary arguments, and is killed for real.
"""

import argparse
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY), str(Path(__file__).parent)]

import test_healing as healing  # noqa: E402
import torch  # noqa: E402
from conftest import tiny_settings, write_corpus  # noqa: E402
from test_trainer import assert_same, poisoned, resumed, trained, trainer_of  # noqa: E402

import checkpoint as ckpt  # noqa: E402
import composition  # noqa: E402
import train  # noqa: E402
from errors import GaveUp  # noqa: E402
from hparams import HParams, create_hparams  # noqa: E402
from trainer import Limits, Trainer  # noqa: E402

SAVE_EVERY, KILLS, KILLS_IN_SAVES, DAMAGES, FULL_DISKS = 5, 150, 50, 1000, 20
LEAST_ROOM = 12_000  # bytes that the logs of a few steps need
SAVE_CALLS = 8  # of fsync and replace within one save, pointers and manifest included


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    fault: str
    outcome: str
    is_kept: bool


@dataclass(frozen=True)
class Place:
    """Where a campaign works: a corpus, and the settings of its tiny model."""

    folder: Path
    corpus: Path

    def hparams(self, more: str = "") -> HParams:
        return create_hparams(tiny_settings(self.corpus, more))


# ---- kill -9


def in_child(work: Callable[[], None], *, kill_after_s: float | None = None) -> int:
    """Runs `work` in a forked process, killed after so many seconds. -> exit code, negative for a signal"""
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        try:
            work()
        except SystemExit as end:
            os._exit(int(end.code or 0))
        except BaseException:  # noqa: BLE001 - the parent reads the code
            os._exit(70)
        os._exit(0)
    if kill_after_s is not None:
        time.sleep(kill_after_s)
        with suppress(ProcessLookupError):  # it was faster
            os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kill_within_a_save(call: int) -> None:
    """The process ends itself with SIGKILL at its `call`-th fsync or replace from now on."""
    left = call

    def counted(original: Callable[..., None]) -> Callable[..., None]:
        def wrapper(*args: object) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            original(*args)

        return wrapper

    os.fsync, os.replace = counted(os.fsync), counted(os.replace)


def kills(place: Place, chance: random.Random) -> Row:
    """The same command again and again, killed at random moments, must reach the end as if nothing had happened."""
    endless = f"epochs=1000000,iters_per_checkpoint={SAVE_EVERY},tensorboard_logging=False"
    settings = tiny_settings(place.corpus, endless)
    run = place.folder / "killed"

    reached = multiprocessing.Value("q", 0)  # shared with the children: the step that each had finished when it died

    class Counted(Trainer):
        def _step(self, *arguments: Any) -> None:
            super()._step(*arguments)
            reached.value = self.progress.step

    composition.Trainer = Counted  # type: ignore[misc]

    def command(output: Path, last: int) -> None:
        sys.exit(train.main(["-o", str(output), "-l", str(place.folder / "logs"), "--hparams", settings,
                             "--max-steps", str(last)]))  # fmt: skip

    began = time.perf_counter()
    assert in_child(lambda: command(place.folder / "timed", 30)) == 0
    usual_s = time.perf_counter() - began  # of a launch and thirty steps
    corrupt = unusable = 0
    lost: list[int] = []
    moments = [True] * KILLS_IN_SAVES + [False] * KILLS
    chance.shuffle(moments)
    for is_in_save in moments:
        before = reached.value = newest_step(run)
        if is_in_save:
            call = chance.randrange(1, 4 * SAVE_CALLS)

            def work(call: int = call) -> None:
                kill_within_a_save(call)
                command(run, 10**6)

            code = in_child(work)
        else:
            code = in_child(lambda: command(run, 10**6), kill_after_s=chance.uniform(0.0, usual_s))
        unusable += code != -signal.SIGKILL  # refused to go on
        corrupt += sum(ckpt.verdict(p).problem is not None for p in [ckpt.newest_good(run / "checkpoints")] if p)
        corrupt += newest_step(run) < before
        lost.append(reached.value - newest_step(run))
    end = newest_step(run) + 20
    straight = in_child(lambda: command(place.folder / "straight", end))
    again = in_child(lambda: command(run, end))
    same = straight == again == 0 and same_end(run, place.folder / "straight", end)
    counts = f"{len(moments)} kills ({KILLS_IN_SAVES} at an fsync or a rename)"
    outcome = (
        f"{counts}, {unusable} runs that the same command could not resume, {corrupt} corrupt checkpoints accepted, "
        f"at most {max(lost)} steps lost (saved every {SAVE_EVERY}); "
        f"weights at step {end} {'equal' if same else 'DIFFER FROM'} an undisturbed run's"
    )
    # an interval, and what was trained while the next checkpoint was being written: at most another
    is_kept = not unusable and not corrupt and same and max(lost) <= 2 * SAVE_EVERY
    return Row("kill -9 at random moments", outcome, is_kept)


def newest_step(run: Path) -> int:
    newest = ckpt.newest_good(run / "checkpoints")
    return int(newest.name[5:13]) if newest else 0


def same_end(a: Path, b: Path, step: int) -> bool:
    first, second = (ckpt.load(ckpt.checkpoint_path(run / "checkpoints", step)) for run in (a, b))
    assert first.training is not None and second.training is not None
    try:
        assert_same(first.model, second.model)
        assert_same(first.training["optimizer"], second.training["optimizer"])
    except AssertionError:
        return False
    return True


# ---- resume, damage, full disks, foreign code


def resumes(place: Place, chance: random.Random) -> Row:
    """At every step of two epochs, in the middle of accumulation's rhythm too."""
    wrong, tried = 0, 0
    for settings in ("", "batch_size=1,gradient_accumulation_steps=2", "validate_interval=2,use_mmi=True"):
        hp, n = place.hparams(settings), 8
        straight = trained(hp, place.folder / f"straight{tried}", n)
        for k in range(1, 7):
            directory = place.folder / f"cut{tried}"
            first = trainer_of(hp, directory, limits=Limits(max_steps=n))
            first.interrupt_at = k
            first.fit()
            second = resumed(hp, directory, n)
            tried += 1
            try:
                assert first.seen + second.seen == straight.seen
                assert_same(straight.state().model, second.state().model)
                assert_same(straight.state().training, second.state().training)
            except AssertionError:
                wrong += 1
    outcome = f"{tried} cuts, weights, optimiser, progress or utterance order different in {wrong}"
    return Row("interrupted at every step of two epochs", outcome, wrong == 0)


def damages(place: Place, chance: random.Random) -> Row:
    """Bit flips and truncations anywhere in a checkpoint."""
    directory = place.folder / "damaged"
    path = ckpt.checkpoint_path(directory / "checkpoints", 1)
    trained(place.hparams(), directory, 1)
    whole, missed = path.read_bytes(), 0
    for i in range(DAMAGES):
        position = chance.randrange(len(whole))
        if i % 2:
            path.write_bytes(whole[:position])
        else:
            flipped = bytes([whole[position] ^ 1 << chance.randrange(8)])
            path.write_bytes(whole[:position] + flipped + whole[position + 1 :])
        missed += ckpt.problem_of(path) is None
    return Row("random truncations and bit flips", f"{DAMAGES} damaged, {DAMAGES - missed} detected", missed == 0)


def full_disks(place: Place, chance: random.Random) -> Row:
    """No file may grow beyond so many bytes while a checkpoint is written."""
    size = len(ckpt.checkpoint_path(place.folder / "damaged" / "checkpoints", 1).read_bytes())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    survived = verified = 0
    for i in range(FULL_DISKS):
        directory = place.folder / f"full{i}"
        trainer = trainer_of(place.hparams("iters_per_checkpoint=2"), directory, limits=Limits(max_steps=6))
        room = LEAST_ROOM + (size - LEAST_ROOM) * i // FULL_DISKS

        def limit(t: object, trainer: object = trainer, room: int = room) -> None:
            trainer.settle(wait=True)  # type: ignore[attr-defined]
            is_full = trainer.progress.step in (3, 4)  # type: ignore[attr-defined]
            resource.setrlimit(resource.RLIMIT_FSIZE, (room if is_full else soft, hard))

        trainer.on_step = limit
        try:
            survived += trainer.fit().step == 6
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        verified += all(ckpt.verdict(path).problem is None for path in ckpt.all_checkpoints(directory / "checkpoints"))
        trainer.log.close()
    outcome = f"{FULL_DISKS} full disks, training went on in {survived}, all checkpoints left verify in {verified}"
    return Row("disk full at different byte counts", outcome, survived == verified == FULL_DISKS)


TOLD = ("skipped", "tightened", "rollback", "gave_up", "out_of_memory")

ENTRIES = (
    "train.py -o {out} -l {out} -c {evil} --preset demo --max-steps 1",
    "train.py -o {out} -l {out} -c {evil} --warm-start --preset demo --max-steps 1",
    "synthesize.py -c {evil} Hello -o {out}.wav",
    "evaluate.py -c {evil}",
    "emergency_recovery.py {run}",
    "emergency_recovery.py {run} --checkpoint {evil} --export-weights",
)


def memory_ends(stepper: object, losses: object) -> None:
    raise torch.OutOfMemoryError("out of memory")


def always(since: int, do: Callable[..., None]) -> healing.Hurt:
    return lambda stepper, step, losses: do(stepper, losses) if step >= since else None


FAULTS = {
    "NaN in the loss, once": healing.once(8, healing.nan_loss),
    "NaN in one gradient, once": healing.once(8, healing.nan_gradient),
    "gradient x 1e6, once": healing.once(8, healing.large_gradient),
    "NaN in a weight": healing.once(8, healing.nan_weight),
    "infinity in a weight": healing.once(8, healing.inf_weight),
    "NaN in the statistics of batch normalisation": healing.once(8, healing.nan_statistics),
    "NaN in Adam's state": healing.once(8, healing.nan_moments),
    "infinity in Adam's state": healing.once(8, healing.inf_moments),
    "NaN in the loss from step 8 on": always(8, healing.nan_loss),
    "gradient x 1e6 from step 8 on": always(8, healing.large_gradient),
    "memory ends at step 8": healing.once(8, memory_ends),
    "a recording broken on disk": lambda stepper, step, losses: None,
}


def faults(place: Place, chance: random.Random) -> list[Row]:
    """Numbers that go wrong in a run of 30 steps with a checkpoint every 5."""
    rows = []
    for number, (name, hurt) in enumerate(FAULTS.items()):
        hp, directory = place.hparams(healing.OFTEN), place.folder / f"fault{number}"
        corpus = poisoned(hp, 2) if "recording" in name else None
        trainer = trainer_of(hp, directory, limits=Limits(max_steps=30), corpus=corpus)
        healing.infect(trainer, hurt)
        try:
            end = f"trained to step {trainer.fit().step}"
        except GaveUp:
            told = healing.diagnosis(directory)
            last_good = Path(told["last_good"]).name
            end = f"stopped at step {told['step']}, diagnosis: {told['kind']}, last good: {last_good}"
        kinds = Counter(event.kind for kind in TOLD for event in trainer.events(kind))
        whole = all(ckpt.verdict(path).problem is None for path in ckpt.all_checkpoints(directory / "checkpoints"))
        is_kept = whole and ("from step" in name) == end.startswith("stopped")
        rows.append(Row(name, f"{end}; {', '.join(f'{n} x {kind}' for kind, n in kinds.items())}", is_kept))
        trainer.log.close()
    return rows


class Malicious:
    """Unpickling it makes a folder: what foreign code would do is the same to us as anything else."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.folder),)


def foreign_code(place: Place, chance: random.Random) -> Row:
    """A checkpoint that would run code, offered wherever a checkpoint is read."""
    run, executed = place.folder / "evil", place.folder / "executed"
    (run / "checkpoints").mkdir(parents=True)
    (run / "run.json").write_text("{}")
    evil = run / "checkpoints" / "step_00000001.pt"
    torch.save({"format": 1, "model": Malicious(executed)}, evil)
    refused = 0
    for entry in ENTRIES:
        words = entry.format(out=place.folder / "x", evil=evil, run=run).split()
        done = subprocess.run([sys.executable, str(REPOSITORY / words[0]), *words[1:]], capture_output=True, text=True)
        said = done.stdout + done.stderr
        refused += done.returncode != 0 and "could run foreign code" in said and "Traceback" not in said
    outcome = f"{len(ENTRIES)} entry points, refused by {refused}, executed {int(executed.exists())} times"
    return Row("a checkpoint with foreign code", outcome, refused == len(ENTRIES) and not executed.exists())


CAMPAIGNS: dict[str, Callable[[Place, random.Random], Row | list[Row]]] = {
    "kills": kills,
    "resumes": resumes,
    "damages": damages,
    "full_disks": full_disks,
    "faults": faults,
    "foreign_code": foreign_code,
}


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("names", nargs="*", default=list(CAMPAIGNS), help=f"some of {', '.join(CAMPAIGNS)} (default: all)")
    p.add_argument("--seed", type=int, default=1234)
    args = p.parse_args()
    torch.set_num_threads(1)
    rows: list[Row] = []
    print("| fault | outcome | kept |\n|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TACOTRON2_CACHE"] = str(Path(folder) / "cache")
        place = Place(Path(folder), write_corpus(Path(folder) / "data"))
        for name in args.names:
            began = time.perf_counter()
            done = CAMPAIGNS[name](place, random.Random(f"{args.seed} {name}"))
            rows += done if isinstance(done, list) else [done]
            print(f"{name}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
            for row in done if isinstance(done, list) else [done]:
                print(f"| {row.fault} | {row.outcome} | {'yes' if row.is_kept else 'NO'} |", flush=True)
    return 0 if all(row.is_kept for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
