"""Two processes on gloo take the path of a GPU: no step waits for the device, and one that does ends the run."""

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hparams import resolve_hparams
from kernels.host_sync import FORBID_VARIABLE, HostSyncError
from parallel.process_group import ProcessGroup
from run_directory.metrics_log import read_metrics
from support.corpora import tiny_settings
from support.gpu_path import take_gpu_path
from support.losses import ALL
from training.options import Options
from training.session import train

STEPS = 2
# what processes add up on the device beside the gradient: MMI's factor, what an utterance counts; and what is switched
# on by a setting: dropped frames, averaged weights, a gradient sent as bf16, batches in parts
SETTINGS = (
    f"{ALL},batch_size=2,ema_decay=0.9,gradient_compression=bf16,gradient_accumulation_steps=2,use_guided_attn=True,"
    "validate_interval=2"
)
PLANTED: dict[str, Callable[[Tensor], object]] = {
    "item": lambda loss: loss.item(),
    "cpu": lambda loss: loss.cpu(),
    "bool": lambda loss: bool(loss > 0),
    "a count copied to the device": lambda loss: torch.as_tensor(3, device=loss.device),
}


@contextmanager
def planted(wait: Callable[[Tensor], object]) -> Iterator[None]:
    """Every step waits, where it adds numbers up over the processes."""
    adding = ProcessGroup.all_reduce_sum_on_device

    def add(self: ProcessGroup, *counts: Tensor | int) -> tuple[Tensor | int, ...]:
        sums = adding(self, *counts)
        wait(torch.as_tensor(sums[0]))
        return sums

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ProcessGroup, "all_reduce_sum_on_device", add)
        yield


def one_run(rank: int, corpus: Path, folder: Path) -> str:
    """All that train.py does in one of two processes. -> the wait that ended it, "" where none did"""
    settings = resolve_hparams(overrides=f"{tiny_settings(corpus, SETTINGS)},distributed_run=True,"
                                         f"dist_url=file://{folder}/meeting")  # fmt: skip
    options = Options(output=folder / "run", logs=folder / "logs", max_steps=STEPS, n_gpus=2, rank=rank)
    folder.mkdir(exist_ok=True)
    try:
        assert train(settings, options) == 0
    except HostSyncError as error:
        return str(error)
    return ""


def one_of_two(rank: int, corpus: Path, folder: Path) -> None:
    """What one of the two processes does; its findings are for the parent to judge."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TACOTRON2_CACHE", str(folder / "cache"))
        patch.setenv(FORBID_VARIABLE, "1")
        take_gpu_path(patch)
        found = {"nothing": one_run(rank, corpus, folder / "nothing")}
        for name, wait in PLANTED.items():
            with planted(wait):
                found[name] = one_run(rank, corpus, folder / name)
    torch.save(found, folder / f"{rank}.pt")


@pytest.fixture(scope="module")
def pair(corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, str]]]:
    """Where the runs lie, and how each ended in both processes."""
    folder = tmp_path_factory.mktemp("pair")
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=one_of_two, args=(rank, corpus_folder, folder)) for rank in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=500)
        assert process.exitcode == 0
    return folder, [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.slow
def test_two_processes_train_and_no_step_waits(pair: tuple[Path, list[dict[str, str]]]) -> None:
    folder, found = pair
    assert [one["nothing"] for one in found] == ["", ""]
    records = list(read_metrics(folder / "nothing" / "run"))
    assert [r["step"] for r in records if r["type"] == "step"] == [STEPS]
    assert {"mmi", "mel_coarse", "monotonicity"} <= records[-1]["losses"].keys()
    assert torch.isfinite(torch.tensor([r["losses"]["total"] for r in records if r["type"] == "step"])).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", PLANTED)
def test_a_wait_in_a_step_of_several_ends_the_run(name: str, pair: tuple[Path, list[dict[str, str]]]) -> None:
    folder, found = pair
    assert all(one[name] for one in found), found
    assert not [r for r in read_metrics(folder / name / "run") if r["type"] == "step"]
