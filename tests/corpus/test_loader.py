"""Loading: the batches of the plan, from any point, by any number of processes, whatever happens to these."""

import os
import shlex
import signal
import subprocess
from collections.abc import Iterator
from itertools import islice
from multiprocessing import active_children
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from common.errors import UserError
from corpus.batch import Batch, MelDataset
from corpus.batch_plan import BatchPlan, round_up
from corpus.loader import _whoever_dies, largest_batch_bytes, loader_workers, make_loader, workers_that_fit
from data_utils import plan_batches
from hparams import create_hparams
from support.commands import command, environment
from support.corpora import assert_same_batch, dataset, tiny_settings

__all__ = ["dataset"]


def load(dataset: MelDataset, plan: BatchPlan, **settings: int) -> list[Batch]:
    return list(make_loader(dataset, plan, **({"epoch": 2, "r": 1} | settings)))


def test_batches_follow_the_plan(dataset: MelDataset) -> None:
    plan = plan_batches(dataset, create_hparams("batch_size=4"))
    batches = load(dataset, plan)
    for batch, indices in zip(batches, plan.epoch(2), strict=True):
        assert batch.utterance_ids == tuple(f"u{i}" for i in indices)
        assert (batch.text.shape[1], batch.mel.shape[2]) == plan.shape(indices)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_resumed_epoch_gives_exactly_the_remaining_batches(dataset: MelDataset, num_workers: int) -> None:
    plan = plan_batches(dataset, create_hparams("batch_size=4"))
    whole = load(dataset, plan)
    rest = load(dataset, plan, first_batch=3, num_workers=num_workers)
    assert len(rest) == len(whole) - 3
    for left, right in zip(rest, whole[3:], strict=True):
        assert_same_batch(left, right)


def test_resuming_after_the_last_batch_gives_nothing(dataset: MelDataset) -> None:
    plan = plan_batches(dataset, create_hparams("batch_size=4"))
    assert load(dataset, plan, first_batch=len(plan.epoch(2))) == []


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_endless_loader_gives_epoch_after_epoch_by_the_same_processes(dataset: MelDataset, num_workers: int) -> None:
    plan = plan_batches(dataset, create_hparams("batch_size=4"))
    expected = [batch for epoch in (2, 3, 4) for batch in load(dataset, plan, epoch=epoch)][1:]
    others = set(active_children())
    endless = iter(make_loader(dataset, plan, epoch=2, r=1, first_batch=1, num_workers=num_workers, is_endless=True))
    assert_same_batch(next(endless), expected[0])
    loaders = set(active_children()) - others
    for left, right in zip(islice(endless, len(expected) - 1), expected[1:], strict=True):
        assert_same_batch(left, right)
    assert len(loaders) == num_workers and set(active_children()) - others == loaders


def test_loading_leaves_the_global_generator_alone(dataset: MelDataset) -> None:
    before = torch.random.get_rng_state()
    load(dataset, plan_batches(dataset, create_hparams("batch_size=4")))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("r", [1, 2, 3, 5])
@pytest.mark.parametrize("use_bands", [True, False])
def test_every_shape_is_a_whole_number_of_decoder_steps(dataset: MelDataset, r: int, use_bands: bool) -> None:
    hp = create_hparams(f"batch_size=4,n_frames_per_step={r},use_bucket_batching={use_bands}")
    for batch in load(dataset, plan_batches(dataset, hp), r=r):
        assert batch.mel.shape[2] == r * batch.gate.shape[1]


def test_plain_batches_are_padded_to_their_own_maximum(dataset: MelDataset) -> None:
    hp = create_hparams("batch_size=4,n_frames_per_step=3,use_bucket_batching=False")
    for batch in load(dataset, plan_batches(dataset, hp), r=3):
        assert batch.mel.shape[2] == round_up(int(batch.mel_lengths.max()), 3)
        assert batch.text.shape[1] == int(batch.text_lengths.max())


@pytest.mark.parametrize(("setting", "cores", "feeds_gpu", "expected"), [
    ("auto", 2, False, 0), ("auto", 4, False, 0), ("auto", 6, False, 3), ("auto", 64, False, 8), (0, 64, False, 0),
    (5, 2, False, 5), ("auto", 2, True, 2), ("auto", 6, True, 3), (0, 2, True, 0),
])  # fmt: skip
def test_auto_workers_follow_the_cores(setting: int | str, cores: int, feeds_gpu: bool, expected: int) -> None:
    assert loader_workers(setting, feeds_gpu=feeds_gpu, n_cores=cores) == expected


# ---- deaths


def test_when_a_loading_process_is_killed_no_batch_is_lost_and_none_comes_twice(
    dataset: MelDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("corpus.loader.SILENCE_S", 20.0)  # now and then PyTorch isn't told of the death
    plan = plan_batches(dataset, create_hparams("batch_size=4"))
    expected = [batch for epoch in (2, 3, 4) for batch in load(dataset, plan, epoch=epoch)][1:]
    others, told = set(active_children()), list[str]()
    settings = {"epoch": 2, "r": 1, "first_batch": 1, "is_endless": True}
    came = []
    for batch in islice(make_loader(dataset, plan, num_workers=2, tell=told.append, **settings), len(expected)):
        came.append(batch)
        if len(came) == 3:
            for loader in set(active_children()) - others:
                os.kill(loader.pid or 0, signal.SIGKILL)
    for left, right in zip(came, expected, strict=True):
        assert_same_batch(left, right)
    (message,) = told
    assert "a process that loads batches died" in message


def failing(n_batches: int, error: Exception) -> Iterator[int]:
    yield from range(n_batches)
    raise error


DEATH = RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly")


def test_processes_that_die_again_and_again_before_a_batch_comes_are_not_replaced_for_ever() -> None:
    begun, told = list[int](), list[str]()

    def loader(n_done: int) -> Iterator[int]:
        begun.append(n_done)
        return failing(2 if n_done < 4 else 0, DEATH)

    with pytest.raises(UserError, match="died 3 times in a row.*num_workers=0 loads in the training process"):
        list(_whoever_dies(loader, told.append))
    assert begun == [0, 2, 4, 4] and len(told) == 3  # the third in vain is not replaced


@pytest.mark.parametrize("error", [RuntimeError("shapes"), OSError("Caught OSError in DataLoader worker process 0.")])
def test_an_error_that_a_loading_process_raised_is_no_death(error: Exception) -> None:
    with pytest.raises(type(error), match=str(error)):
        list(_whoever_dies(lambda n_done: failing(2, error), lambda message: None))


# ---- shared memory


def test_processes_whose_batches_have_no_room_in_shared_memory_are_not_begun(
    dataset: MelDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, told = plan_batches(dataset, create_hparams("batch_size=4")), list[str]()
    needed = 5 * largest_batch_bytes(dataset, plan)  # two processes, two batches each, and the one in use
    for free, expected in ((needed, 2), (needed - 1, 0)):
        monkeypatch.setattr("shutil.disk_usage", lambda path, free=free: SimpleNamespace(free=free))
        assert workers_that_fit(2, dataset, plan, tell=told.append, memory=tmp_path) == expected
    assert workers_that_fit(2, dataset, plan, tell=told.append, memory=tmp_path) == 0
    (message,) = told  # once, not every epoch
    assert "num_workers=2" in message and "--shm-size" in message and str(tmp_path) in message


def test_a_batch_of_a_process_is_as_large_as_foreseen(dataset: MelDataset) -> None:
    plan = plan_batches(dataset, create_hparams("batch_size=4"))
    sizes = [b.text.nbytes + b.mel.nbytes + b.gate.nbytes for b in load(dataset, plan, epoch=0)]
    assert largest_batch_bytes(dataset, plan) == max(sizes)


@pytest.mark.spec
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small /dev/shm needs root")
def test_training_goes_on_where_shared_memory_is_small(corpus_folder: Path, tmp_path: Path) -> None:
    settings = tiny_settings(corpus_folder, "num_workers=2,batch_size=2")
    train = command("train.py", "-o", "o", "-l", "l", "--max-steps", "2", "--hparams", settings)
    mount = f"mount -t tmpfs -o size=4k tmpfs /dev/shm && exec {shlex.join(train)}"
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", mount], cwd=tmp_path, env=environment(tmp_path / "cache"),
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    if "unshare" in done.stderr:
        pytest.skip(f"no private mount here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("batches are loaded without processes") == 1
