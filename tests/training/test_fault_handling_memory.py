"""A batch that does not fit into memory: parts with the same result, or an end with advice."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from checkpointing import checkpoint_file
from checkpointing import directory as checkpoint_dir
from common.errors import GaveUp, is_out_of_memory
from corpus.batch import Batch
from hparams import HParams
from support.faults import (
    diagnosis,
)
from support.limits import memory_room
from support.runs import (
    NO_DROPOUT,
    Frozen,
    Watched,
    assert_same_run,
    trained,
    trainer_of,
)
from training.progress import Progress
from training.trainer import Limits

Tiny = Callable[..., HParams]


class Hungry(Frozen):
    """Memory for so many utterances at a time; `raises` says so in the words of a device."""

    def __init__(self, *arguments: Any, room: int, raises: Callable[[], Exception]) -> None:
        super().__init__(*arguments)
        self.room, self.raises = room, raises

    def accumulate(self, micro_batches: Sequence[Batch], *, step: int) -> dict[str, Tensor]:
        if any(len(batch) > self.room for batch in micro_batches):
            super().accumulate(micro_batches[:1], step=step)  # ends in the middle: gradients, statistics, dropout
            raise self.raises()
        return super().accumulate(micro_batches, step=step)


def allocator() -> Exception:
    with memory_room(2**20), pytest.raises(RuntimeError) as raised:
        torch.empty(2**26)
    return raised.value


def cuda() -> Exception:
    return torch.OutOfMemoryError("CUDA out of memory. Tried to ...")


def hungry(
    hp: HParams, directory: Path, steps: int, *, room: int = 2, raises: Callable[[], Exception] = cuda
) -> Watched:
    make = partial(Hungry, room=room, raises=raises)
    return trainer_of(hp, directory, limits=Limits(max_steps=steps), train_step=make)


@pytest.mark.parametrize("raises", [cuda, allocator, MemoryError], ids=["cuda", "cpu", "python"])
def test_a_batch_that_does_not_fit_is_taken_in_parts_with_the_same_result(
    tiny: Tiny, tmp_path: Path, raises: Callable[[], Exception]
) -> None:
    hp = tiny(f"batch_size=5,{NO_DROPOUT}")
    whole = trainer_of(hp, tmp_path / "whole", limits=Limits(max_steps=1), train_step=Frozen)
    whole.fit()
    trainer = hungry(hp, tmp_path / "parts", 1, raises=raises)
    trainer.fit()
    assert [(e.step, e.data["splits"]) for e in trainer.events("out_of_memory")] == [(1, 2), (1, 4)]
    assert "fp16_run=True" in trainer.events("out_of_memory")[0].message
    assert trainer.losses == pytest.approx(whole.losses, rel=1e-5) and whole.losses
    gradients = [t.train_step.optimizer.state_dict()["state"] for t in (whole, trainer)]
    for i, state in gradients[0].items():  # Adam's first moment is a tenth of the gradient
        torch.testing.assert_close(gradients[1][i]["exp_avg"], state["exp_avg"], rtol=1e-4, atol=1e-6)


def test_the_parts_are_remembered(tiny: Tiny, tmp_path: Path) -> None:
    hp = tiny("batch_size=5,iters_per_checkpoint=2")
    straight = hungry(hp, tmp_path / "straight", 6)
    straight.fit()
    first = hungry(hp, tmp_path / "cut", 3)
    first.fit()
    second = hungry(hp, tmp_path / "cut", 6)
    newest = checkpoint_dir.newest_good(tmp_path / "cut/checkpoints")
    assert newest is not None
    second.restore(checkpoint_file.load(newest))
    second.fit()
    assert not second.events("out_of_memory") and second.progress.splits == 4
    assert_same_run(straight, second)


def test_a_single_utterance_that_does_not_fit_ends_the_run_with_advice(tiny: Tiny, tmp_path: Path) -> None:
    trainer = hungry(tiny(), tmp_path, 6, room=0)
    told = "(?s)does not suffice for a single utterance.*advice:      fp16_run=True, a smaller"
    with pytest.raises(GaveUp, match=told):
        trainer.fit()
    assert diagnosis(tmp_path)["kind"] == "out_of_memory" and len(diagnosis(tmp_path)["utterances"]) == 2


@pytest.mark.parametrize(
    ("said", "is_memory"),
    [
        ("CUDA out of memory. Tried to allocate 2.00 GiB", True),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`", True),
        ("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED", True),
        ("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasSgemm(handle)`", False),
        ("std::bad_alloc", True),
        ("could not create a primitive", True),
        ("could not execute a primitive", True),
        ("could not create a primitive descriptor for the matmul primitive. Run workload with ...", False),
        ("[enforce fail at alloc_cpu.cpp:116] DefaultCPUAllocator: not enough memory", True),
        ("[WinError 1455] The paging file is too small for this operation to complete", True),
        ("CUDA error: cudaErrorMemoryAllocation", True),
        ("UR error: UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY", True),
        ("nvrtc: error: failed to allocate memory", True),
        ("CUDA error: unspecified launch failure", False),
        ("shapes do not match", False),
    ],
)
def test_memory_that_ended_is_told_from_other_errors_by_what_libraries_say_of_it(said: str, is_memory: bool) -> None:
    assert is_out_of_memory(RuntimeError(said)) is is_memory


def test_an_error_of_the_code_is_not_taken_for_lack_of_memory(tiny: Tiny, tmp_path: Path) -> None:
    trainer = hungry(tiny(), tmp_path, 6, room=0, raises=lambda: RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes do not match"):
        trainer.fit()
    assert not trainer.events("out_of_memory")


def test_the_largest_batch_is_rehearsed_without_a_trace(tiny: Tiny, tmp_path: Path) -> None:
    hp = tiny("use_mmi=True")
    plain = trained(hp, tmp_path / "plain", 4)
    trainer = trainer_of(hp, tmp_path / "rehearsed", limits=Limits(max_steps=4))
    trainer._is_rehearsed = False  # as on a GPU
    lengths: list[int] = []
    rehearse = trainer.faults.rehearse

    def watched(batch: Batch, progress: Progress) -> None:
        lengths.append(batch.mel.size(2))
        rehearse(batch, progress)

    trainer.faults.rehearse = watched  # type: ignore[method-assign]
    trainer.fit()
    assert lengths == [max(shape[1] for shape in trainer.batches.plan.bands)]
    assert_same_run(plain, trainer)


def test_memory_that_the_largest_batch_lacks_is_found_out_in_the_first_minute(tiny: Tiny, tmp_path: Path) -> None:
    trainer = hungry(tiny("batch_size=2"), tmp_path, 1, room=1)
    trainer._is_rehearsed = False
    trainer.fit()
    assert trainer.progress.splits == 2
