"""Several processes, one model: two real processes on gloo take the steps of one process with the joined batch."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from checkpointing import checkpoint_file
from checkpointing import directory as checkpoint_dir
from checkpointing.checkpoint_file import Checkpoint
from common.errors import DataError, UserError
from corpus.batch_plan import BatchPlan
from corpus.loader import make_loader
from data_utils import Corpus, load_corpus
from hparams import HParams
from parallel.process_group import (
    SINGLE_PROCESS,
    ProcessGroup,
    ProcessRank,
    chosen_backend,
    process_group,
    resolve_rank,
)
from run_directory.metrics_log import RunLog
from run_directory.records import Event, StepRecord
from support.losses import ALL, FrozenHead
from support.runs import CPU, NO_DROPOUT, Frozen, KeptRecords, Watched, assert_same, model_of, poisoned, trainer_of
from training.train_step import TrainStep
from training.trainer import Limits

Tiny = Callable[..., HParams]
STEPS, CUT = 6, 4
PLAIN = f"batch_size=2,{NO_DROPOUT}"
STEPPED = f"{PLAIN},n_frames_per_step=2,gradient_accumulation_steps=2"
EVERYTHING = f"{PLAIN},{ALL},drop_frame_rate=0,use_gaf=False"


def in_group(
    hp: HParams,
    directory: Path,
    group: ProcessGroup,
    corpus: Corpus,
    *,
    steps: int = STEPS,
    train_step: Callable[..., TrainStep] = TrainStep,
) -> Watched:
    """A trainer as training/session.py builds it."""
    model = model_of(hp)
    group.seed_by_rank(hp.seed)
    return Watched(
        hp,
        model,
        corpus,
        directory=directory,
        recorder=KeptRecords(RunLog(directory, attempt=1) if group.is_first else None),
        limits=Limits(max_steps=steps),
        device=CPU,
        group=group,
        train_step=train_step(hp, model, corpus, CPU, group),
    )


def frozen(hp: HParams) -> type[TrainStep]:
    return FrozenHead if hp.use_mmi else Frozen


def gradients(trainer: Watched) -> list[dict[str, Any]]:
    """Gradients and losses of every step of the first epoch, added over the group, by running statistics."""
    train_step, group, found = trainer.train_step, trainer.group, []
    k = trainer.hp.gradient_accumulation_steps
    loader = make_loader(
        trainer.corpus.train, trainer.batches.plan, epoch=0, r=trainer.hp.n_frames_per_step, part=group.rank
    )
    batches = list(loader)
    for i in range(0, len(batches), k):
        train_step.optimizer.zero_grad()
        losses = train_step.accumulate(batches[i : i + k], step=1)
        train_step.sync_gradients()
        added = group.all_reduce_sum({name: float(value) for name, value in losses.items()})
        parts = {n: p.grad.clone() for n, p in trainer.model.named_parameters() if p.grad is not None}
        found.append({"gradients": parts, "losses": added, "counts": [b.counts for b in batches[i : i + k]]})
    return found


def cut_and_resumed(hp: HParams, folder: Path, group: ProcessGroup, corpus: Corpus) -> dict[str, Any]:
    """A straight run, and one that a signal to one process alone ended, and that then went on."""
    straight = in_group(hp, folder / "straight", group, corpus)
    straight.fit()
    first = in_group(hp, folder / "cut", group, corpus)
    first.interrupt_at = CUT if group.rank == 1 else -1
    outcome = first.fit()
    assert first.progress.step == CUT
    second = in_group(hp, folder / "cut", group, corpus)
    torch.manual_seed(999)  # whatever the new process has drawn meanwhile
    path = checkpoint_dir.checkpoint_path(folder / "cut" / "checkpoints", CUT)
    second.restore(group.broadcast(checkpoint_file.load(path) if group.is_first else None))
    second.fit()
    return {
        "signal": outcome.signal,
        "straight": vars(straight.state()),
        "resumed": vars(second.state()),
        "seen": straight.seen,
        "seen_in_two": first.seen + second.seen,
    }


def healed(hp: HParams, folder: Path, group: ProcessGroup, corpus: Corpus) -> dict[str, Any]:
    """A run in which a weight of one process alone becomes NaN after the fifth step."""
    trainer = in_group(hp, folder / "healed", group, corpus)

    def damage(t: Watched) -> None:
        if group.rank == 1 and t.progress.step == 5 and not t.faults.rollback.journal.rollbacks:
            with torch.no_grad():
                t.model.embedding.weight[0, 0] = torch.nan

    trainer.on_step = damage
    outcome = trainer.fit()
    return {
        "step": outcome.step,
        "kinds": [e.kind for e in trainer.records if isinstance(e, Event)],
        "rollbacks": [(entry["kind"], entry["to"]) for entry in trainer.faults.rollback.journal.rollbacks],
        "model": trainer.state().model,
    }


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as error:
        call()
    return f"{type(error.value).__name__}: {error.value}"


def agreed(group: ProcessGroup) -> dict[str, Any]:
    def fail() -> None:
        raise DataError(f"process {group.rank} has no data")

    return {
        "greatest": group.all_reduce_max(15 * group.rank, group.rank == 0),
        "same": group.broadcast(("first", "second")[group.rank]),
        "gathered": group.all_gather(group.rank),
        "from_first": refused(lambda: group.run_on_rank0(fail)),
        "in_turn": refused(lambda: group.run_one_at_a_time(fail if group.rank == 1 else lambda: None)),
    }


def one_of_two(rank: int, hps: dict[str, HParams], folder: Path) -> None:
    """What one of the two processes does; its findings are for the parent to judge."""
    torch.set_num_threads(1)
    os.environ["TACOTRON2_CACHE"] = str(folder / "cache")
    place = ProcessRank(rank, 2, rank, f"file://{folder}/meeting")
    with process_group(place, hps["plain"]) as group:
        corpus = group.run_one_at_a_time(lambda: load_corpus(hps["plain"]))
        found: dict[str, Any] = {"agreed": agreed(group)}
        for name in ("plain", "stepped", "everything", "bf16"):
            found[name] = gradients(
                in_group(hps[name], folder / f"{name}{rank}", group, corpus, train_step=frozen(hps[name]))
            )
        found["resume"] = cut_and_resumed(hps["resume"], folder, group, corpus)
        found["healed"] = healed(hps["resume"], folder, group, corpus)
        spoilt = group.run_one_at_a_time(lambda: poisoned(hps["plain"], 0))
        skipping = in_group(hps["plain"], folder / "skip", group, spoilt, steps=2)
        skipping.fit()
        found["skipped"] = [e.data["utterances"] for e in skipping.events("skipped")]
        found["taken"] = skipping.train_step.optimizer.state_dict()["state"][0]["step"]
        found["records"] = len(skipping.records)
    torch.save(found, folder / f"{rank}.pt")


@pytest.fixture(scope="module")
def pair(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What both processes found, by rank."""
    folder = tmp_path_factory.mktemp("pair")
    hps = {
        "plain": tiny(PLAIN),
        "stepped": tiny(STEPPED),
        "everything": tiny(EVERYTHING),
        "bf16": tiny(f"{PLAIN},gradient_compression=bf16"),
        "resume": tiny("validation_attention_analysis=True,validate_interval=2,iters_per_checkpoint=3"),
    }
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=one_of_two, args=(rank, hps, folder)) for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=240)
        assert process.exitcode == 0
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in (0, 1)]


# ---- the steps of one process with the joined batch


@pytest.mark.parametrize(("name", "settings"), [("plain", PLAIN), ("stepped", STEPPED), ("everything", EVERYTHING)])
@pytest.mark.spec
def test_gradients_and_losses_of_two_processes_are_those_of_one_with_the_joined_batch(
    pair: list[dict[str, Any]], tiny: Tiny, tmp_path: Path, name: str, settings: str
) -> None:
    hp = tiny(settings.replace("batch_size=2", "batch_size=4"))
    alone = gradients(trainer_of(hp, tmp_path, train_step=frozen(hp)))
    for two in (pair[0][name], pair[1][name]):
        assert len(two) == len(alone)
        for theirs, ours in zip(two, alone, strict=True):
            assert theirs["gradients"].keys() == ours["gradients"].keys()
            for parameter, expected in ours["gradients"].items():  # float32 sums in another order
                torch.testing.assert_close(theirs["gradients"][parameter], expected, rtol=1e-4, atol=1e-6)
            assert theirs["losses"] == pytest.approx(ours["losses"], rel=1e-5, abs=1e-6)


@pytest.mark.spec
def test_the_fifth_utterance_counts_once_though_both_processes_compute_it(pair: list[dict[str, Any]]) -> None:
    counts = [sorted(found["counts"] for found in one["plain"]) for one in pair]
    assert counts == [[[True], [True]], [[False], [True]]]


@pytest.mark.spec
def test_both_processes_hold_the_same_gradient_to_the_bit(pair: list[dict[str, Any]]) -> None:
    for name in ("plain", "bf16"):
        for a, b in zip(pair[0][name], pair[1][name], strict=True):
            assert_same(a["gradients"], b["gradients"])


@pytest.mark.spec
def test_gradients_sent_as_bf16_are_the_same_to_three_digits(pair: list[dict[str, Any]]) -> None:
    for exact, short in zip(pair[0]["plain"], pair[0]["bf16"], strict=True):
        a, b = (torch.cat([g.flatten() for g in one["gradients"].values()]) for one in (exact, short))
        assert 0 < (a - b).norm() / a.norm() < 2**-7  # bf16 keeps 8 bits; both parts and their sum are rounded


# ---- together


@pytest.mark.spec
def test_a_signal_to_one_process_ends_all_at_the_same_step(pair: list[dict[str, Any]]) -> None:
    assert [one["resume"]["signal"] for one in pair] == [signal.SIGTERM, signal.SIGTERM]


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.spec
def test_two_processes_cut_and_resumed_are_bit_exactly_the_straight_run(pair: list[dict[str, Any]], rank: int) -> None:
    found = pair[rank]["resume"]
    assert found["seen_in_two"] == found["seen"]
    assert_same(found["resumed"]["model"], found["straight"]["model"])
    assert_same(found["resumed"]["training"], found["straight"]["training"])


@pytest.mark.spec
def test_processes_share_weights_and_statistics_but_neither_utterances_nor_dropout(pair: list[dict[str, Any]]) -> None:
    a, b = (one["resume"] for one in pair)
    assert_same(a["straight"]["model"], b["straight"]["model"])
    assert not torch.equal(a["straight"]["training"]["torch_rng"], b["straight"]["training"]["torch_rng"])
    for mine, theirs in zip(a["seen"], b["seen"], strict=True):
        whole = len(mine[0]) + len(theirs[0])
        assert whole == 2 or not set(mine[0]) & set(theirs[0])  # 2: the fifth utterance, which counts once


@pytest.mark.spec
def test_what_breaks_in_one_process_takes_all_back_to_the_same_checkpoint(pair: list[dict[str, Any]]) -> None:
    a, b = (one["healed"] for one in pair)
    assert a["rollbacks"] == b["rollbacks"] == [("damaged", 4)]  # the best so far, and so saved
    assert a["step"] == b["step"] and "rollback" in a["kinds"]
    assert all(torch.isfinite(t).all() for t in a["model"].values())
    assert_same(a["model"], b["model"])


@pytest.mark.spec
def test_a_gradient_that_is_not_finite_anywhere_is_skipped_everywhere(pair: list[dict[str, Any]]) -> None:
    assert pair[0]["skipped"][0] == ["0"], "whichever process has the broken recording, all know its name"
    assert pair[0]["skipped"] == pair[1]["skipped"]
    assert [float(one["taken"]) for one in pair] == [1.0, 1.0]


@pytest.mark.spec
def test_what_one_process_knows_holds_for_both(pair: list[dict[str, Any]]) -> None:
    for one in pair:
        found = one["agreed"]
        assert (found["greatest"], found["same"], found["gathered"]) == ((15, 1), "first", [0, 1])
        assert found["from_first"] == "DataError: process 0 has no data"
        assert found["in_turn"] == "DataError: process 1 has no data"


@pytest.mark.spec
def test_a_checkpoint_of_two_goes_on_in_one_process(
    pair: list[dict[str, Any]], tiny: Tiny, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = Checkpoint(**pair[0]["resume"]["straight"])
    assert state.training is not None
    state.training["other_processes"] = [SINGLE_PROCESS.random_state()]
    state.training["progress"]["batch_in_epoch"] = 1
    alone = trainer_of(tiny(), tmp_path, limits=Limits(max_steps=STEPS + 1))
    alone.restore(state)
    assert "saved by 2 processes, going on with 1" in caplog.text
    assert alone.progress.batch_in_epoch == 2, "so many batches of two have the utterances of one of four"
    alone.fit()
    assert alone.progress.step == STEPS + 1 and [r for r in alone.records if isinstance(r, StepRecord)]


# ---- the plan


@pytest.mark.parametrize("settings", [{}, {"use_bands": False}, {"max_batch_frames": 700, "batch_size": 1}])
def test_parts_are_disjoint_whole_and_within_the_limits(settings: dict[str, Any]) -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = [(n // 8 + 1, n) for n in torch.randint(20, 300, (101,), generator=generator).tolist()]
    plan = BatchPlan(lengths, **{"batch_size": 3, "seed": 1, "n_parts": 4, **settings})
    utterances = []
    for batch in plan.epoch(2):
        parts = [plan.part(batch, rank) for rank in range(4)]
        counted = [part for rank, part in enumerate(parts) if rank < len(batch)]
        utterances += [i for part in counted for i in part]
        assert all(parts) and set(batch) == {i for part in parts for i in part}
        for part in parts:
            if plan.max_batch_frames:
                assert len(part) * plan.shape(batch)[1] <= plan.max_batch_frames
            else:
                assert len(part) <= plan.batch_size
    assert sorted(utterances) == list(range(101))


def test_four_processes_go_through_the_batches_of_one_with_four_times_the_batch_size() -> None:
    lengths = [(n // 8 + 1, n) for n in range(20, 220)]
    shared = BatchPlan(lengths, batch_size=3, seed=1, n_parts=4)
    assert shared.epoch(5) == BatchPlan(lengths, batch_size=12, seed=1).epoch(5)


# ---- where a process stands


LAUNCHED = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}


def place(tiny: Tiny, settings: str = "", **more: Any) -> ProcessRank | None:
    return resolve_rank(tiny(settings), **{"rank": None, "n_gpus": None, "environment": {}, **more})


def test_a_launcher_says_it_in_the_environment(tiny: Tiny) -> None:
    assert place(tiny, environment=LAUNCHED) == ProcessRank(3, 4, 1, "env://")
    assert place(tiny, environment=LAUNCHED | {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}) is None


def test_processes_started_by_hand_meet_at_dist_url(tiny: Tiny) -> None:
    found = place(tiny, "distributed_run=True,dist_url=tcp://host1:999", rank=1, n_gpus=2)
    assert found is not None and (found.rank, found.size, found.url) == (1, 2, "tcp://host1:999")


def test_distributed_run_in_one_process_trains_alone_and_says_so(tiny: Tiny, caplog: pytest.LogCaptureFixture) -> None:
    assert place(tiny, "distributed_run=True") is None
    assert "this is ONE process" in caplog.text


def test_without_a_gpu_nccl_becomes_gloo_and_says_so(tiny: Tiny, caplog: pytest.LogCaptureFixture) -> None:
    cpu = torch.device("cpu")
    assert chosen_backend(tiny("dist_backend=nccl"), cpu, is_first=True) == "gloo"
    assert "dist_backend=nccl" in caplog.text
    caplog.clear()
    assert chosen_backend(tiny("dist_backend=gloo"), cpu, is_first=True) == "gloo" and not caplog.text


@pytest.mark.parametrize(
    ("settings", "more", "message"),
    [
        ("", {"n_gpus": 2}, "python multiproc.py train.py ... --n_gpus 2"),
        ("", {"rank": 0, "n_gpus": 2}, 'needs --hparams "distributed_run=True"'),
        ("distributed_run=True", {"rank": 2, "n_gpus": 2}, "--rank 2 needs --n_gpus of at least 3"),
        ("", {"n_gpus": 2, "environment": LAUNCHED}, "the launcher's to say"),
    ],
)
def test_what_makes_no_sense_is_refused(tiny: Tiny, settings: str, more: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        place(tiny, settings, **more)


def test_a_group_of_one_changes_nothing() -> None:
    gradient = torch.tensor([1.0 + 2**-20])
    parameter: Tensor = torch.nn.Parameter(torch.zeros(1))
    parameter.grad = gradient.clone()
    SINGLE_PROCESS.all_reduce_gradients([parameter], compression="bf16")
    SINGLE_PROCESS.all_reduce_mean([gradient])
    assert torch.equal(parameter.grad, gradient) and SINGLE_PROCESS.all_reduce_sum_on_device(3, 4) == (3, 4)
    before = torch.get_rng_state()
    SINGLE_PROCESS.seed_by_rank(1)
    assert torch.equal(torch.get_rng_state(), before)
