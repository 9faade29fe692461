"""Checkpoints written beside training: of one step, one at a time, and what a full disk costs."""

from collections.abc import Callable
from pathlib import Path
from threading import Event as Signal

import pytest
import torch

from checkpointing import checkpoint_file
from checkpointing import directory as checkpoint_dir
from checkpointing.background_writer import copied, snapshot
from checkpointing.checkpoint_file import Checkpoint
from hparams import HParams
from support.checkpoints import made, writer_of
from support.limits import disk_that_takes, memory_room
from support.runs import assert_same, logs_are_closed, trainer_of, weights_of
from training.trainer import Limits

Tiny = Callable[..., HParams]
__all__ = ["logs_are_closed"]


def test_a_snapshot_shares_no_memory_with_what_goes_on() -> None:
    live = {"a": torch.ones(3), "b": [torch.zeros(2), {"c": torch.ones(1)}], "n": 4}
    kept = copied(live)
    for tensor in (live["a"], live["b"][0], live["b"][1]["c"]):
        tensor.fill_(9.0)
    assert_same(kept, {"a": torch.ones(3), "b": [torch.zeros(2), {"c": torch.ones(1)}], "n": 4})


def test_training_goes_on_while_a_checkpoint_is_written_and_the_file_holds_its_own_step(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_write, save = Signal(), checkpoint_dir.save

    def slow(checkpoint: Checkpoint, directory: Path) -> Path:
        assert may_write.wait(60)
        return save(checkpoint, directory)

    monkeypatch.setattr(checkpoint_dir, "save", slow)
    trainer = trainer_of(tiny("iters_per_checkpoint=2"), tmp_path, limits=Limits(max_steps=3))
    seen = {}

    def watch(t: object) -> None:
        step = trainer.progress.step
        seen[step] = weights_of(trainer)
        if step == 3:  # reached although nothing could be written
            assert not checkpoint_dir.all_checkpoints(tmp_path / "checkpoints")
            may_write.set()

    trainer.on_step = watch
    trainer.fit()
    assert_same(checkpoint_file.load(checkpoint_dir.checkpoint_path(tmp_path / "checkpoints", 2)).model, seen[2])
    assert [event.step for event in trainer.events("saved")] == [2, 3]


def test_what_became_of_a_checkpoint_is_told_once(tmp_path: Path) -> None:
    writer = writer_of(tmp_path)
    assert writer.collect(wait=True) is None
    writer.start(made(1), is_best=True)
    done = writer.collect(wait=True)
    assert done is not None and done.path == checkpoint_dir.checkpoint_path(tmp_path, 1) and not done.problem
    assert writer.collect(wait=True) is None
    assert checkpoint_dir.pointed(tmp_path, "best") == checkpoint_dir.pointed(tmp_path, "last") == done.path


def test_where_memory_does_not_suffice_for_a_copy_the_checkpoint_is_written_before_training_goes_on(
    tmp_path: Path,
) -> None:
    large = made(1, n=2**25)  # 128 MiB
    writer = writer_of(tmp_path)
    with memory_room(2**26):
        with pytest.raises(RuntimeError, match="allocate memory"):
            snapshot(large)
        writer.start(large, is_best=False)
    done = writer.collect()
    assert done is not None and done.path is not None
    assert_same(checkpoint_file.load(done.path).model, large.model)


def test_on_a_full_disk_milestones_make_room_but_neither_the_last_two_nor_the_best(tmp_path: Path) -> None:
    for step in range(1, 6):
        checkpoint_dir.save(made(step), tmp_path)
    checkpoint_dir.point(tmp_path, "best", checkpoint_dir.checkpoint_path(tmp_path, 2))
    writer = writer_of(tmp_path, keep_last=2, milestone_every=1)
    with disk_that_takes(500):
        writer.start(made(6), is_best=False)
        done = writer.collect(wait=True)
    assert done is not None and done.path is None and "too large" in done.problem
    assert sorted(done.removed) == ["step_00000001.pt", "step_00000003.pt"]
    left = checkpoint_dir.all_checkpoints(tmp_path)
    assert [path.name for path in left] == ["step_00000005.pt", "step_00000004.pt", "step_00000002.pt"]
    assert all(checkpoint_file.problem_of(path) is None for path in left)


def test_a_disk_that_is_full_for_one_save_only_is_written_to_again(tiny: Tiny, tmp_path: Path) -> None:
    writer = writer_of(tmp_path / "not" / "yet")
    (tmp_path / "not").write_text("a file where a folder should be")
    writer.start(made(1), is_best=False)
    failed = writer.collect(wait=True)
    assert failed is not None and failed.path is None and failed.problem
    (tmp_path / "not").unlink()
    writer.start(made(2), is_best=False)
    done = writer.collect(wait=True)
    assert done is not None and done.path is not None
