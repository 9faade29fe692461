"""Numbers that go wrong in the running trainer, and memory that ends."""

import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch

from campaigns.children import in_child
from campaigns.table import Place, Row
from checkpointing import directory as checkpoint_dir
from common.errors import GaveUp
from hparams import HParams
from run_directory.metrics_log import read_jsonl
from support import faults as faults_module
from support.limits import memory_room
from support.runs import poisoned, trained, trainer_of
from training.trainer import Limits

TOLD = ("skipped", "tightened", "rollback", "gave_up", "out_of_memory")
ROOMS_MIB = (80, 40, 30, 24, 18, 12, 8, 4)
# frames and steps that take more memory than the weights do
LARGE = "batch_size=5,hop_length=2,attention_rnn_dim=32,decoder_rnn_dim=32,iters_per_checkpoint=4"


def memory_ends(train_step: object, losses: object) -> None:
    raise torch.OutOfMemoryError("out of memory")


def spoil_batch(train_step: faults_module.Sick, losses: object) -> None:
    train_step.spoils_batch_at = 9


def always(since: int, do: Callable[..., None]) -> faults_module.Hurt:
    return lambda train_step, step, losses: do(train_step, losses) if step >= since else None


FAULTS = {
    "NaN in the loss, once": faults_module.once(8, faults_module.nan_loss),
    "NaN in one gradient, once": faults_module.once(8, faults_module.nan_gradient),
    "gradient x 1e6, once": faults_module.once(8, faults_module.large_gradient),
    "NaN in a batch": faults_module.once(8, spoil_batch),  # before its forward pass, the next step's
    "NaN in a weight": faults_module.once(8, faults_module.nan_weight),
    "infinity in a weight": faults_module.once(8, faults_module.inf_weight),
    "NaN in the statistics of batch normalisation": faults_module.once(8, faults_module.nan_statistics),
    "NaN in Adam's state": faults_module.once(8, faults_module.nan_moments),
    "infinity in Adam's state": faults_module.once(8, faults_module.inf_moments),
    "NaN in the loss from step 8 on": always(8, faults_module.nan_loss),
    "gradient x 1e6 from step 8 on": always(8, faults_module.large_gradient),
    "memory ends at step 8": faults_module.once(8, memory_ends),
    "a recording broken on disk": lambda train_step, step, losses: None,
}


def faults(place: Place, chance: random.Random) -> list[Row]:
    """Numbers that go wrong in a run of 30 steps with a checkpoint every 5."""
    rows = []
    for number, (name, hurt) in enumerate(FAULTS.items()):
        hp, directory = place.hparams(faults_module.OFTEN), place.folder / f"fault{number}"
        corpus = poisoned(hp, 2) if "recording" in name else None
        make = faults_module.sick(hurt)
        trainer = trainer_of(hp, directory, limits=Limits(max_steps=30), corpus=corpus, train_step=make)
        try:
            end = f"trained to step {trainer.fit().step}"
        except GaveUp:
            told = faults_module.diagnosis(directory)
            last_good = Path(told["last_good"]).name
            end = f"stopped at step {told['step']}, diagnosis: {told['kind']}, last good: {last_good}"
        kinds = Counter(event.kind for kind in TOLD for event in trainer.events(kind))
        whole = all(
            checkpoint_dir.status_of(path).problem is None
            for path in checkpoint_dir.all_checkpoints(directory / "checkpoints")
        )
        is_kept = whole and ("from step" in name) == end.startswith("stopped")
        rows.append(Row(name, f"{end}; {', '.join(f'{n} x {kind}' for kind, n in kinds.items())}", is_kept))
        trainer.recorder.close()
    return rows


def memory(place: Place, chance: random.Random) -> Row:
    """Children that may map so much more than they have: a step, a copy or a validation asks for more than there is."""
    hp = place.hparams(LARGE)
    trainer_of(hp, place.folder / "cached").recorder.close()
    outcomes = Counter[str]()
    for room_mib in ROOMS_MIB:
        directory = place.folder / f"memory{room_mib}"
        code = in_child(lambda at=directory, mib=room_mib: within(mib, hp, at, place))
        events = [event["kind"] for event in read_jsonl(directory / "events.jsonl")]
        outcomes[how_it_ended(code, events, directory)] += 1
    is_kept = not any(outcome.startswith("FAILED") for outcome in outcomes) and any("parts" in o for o in outcomes)
    rooms = f"{ROOMS_MIB[0]} to {ROOMS_MIB[-1]} MiB"
    told = ", ".join(f"{n} x {outcome}" for outcome, n in outcomes.items())
    return Row(f"memory really ends (address space limited, {rooms} to spare)", told, is_kept)


def within(room_mib: int, hp: HParams, directory: Path, place: Place) -> int:
    """Eight steps, with so much room, of a process that has trained something smaller before."""
    trained(place.hparams(), directory / "before", 2)
    trainer = trainer_of(hp, directory, limits=Limits(max_steps=8))
    with memory_room(room_mib * 2**20):
        try:
            trainer.fit()
        except GaveUp as error:
            return error.exit_code
    return 0


def how_it_ended(code: int, events: list[str], directory: Path) -> str:
    if code == GaveUp.exit_code:
        kind = json.loads((directory / "diagnosis.json").read_text())["kind"]
        return "stopped with the diagnosis" if kind == "out_of_memory" else f"FAILED: diagnosis {kind}"
    paths = checkpoint_dir.all_checkpoints(directory / "checkpoints")
    if code != 0 or not paths or any(checkpoint_dir.status_of(path).problem for path in paths):
        return f"FAILED: exit code {code}"
    parts = f" in {2 ** events.count('out_of_memory')} parts" if "out_of_memory" in events else ""
    left_out = ", validation left out" if "not_validated" in events else ""
    return f"trained on{parts}{left_out}"
