"""Batches on their way to training: loaded here or by processes, which may die without a batch being lost."""

import multiprocessing
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import count, islice
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset

from common.errors import UserError, first_line
from common.log import LOG
from common.processors import n_processors
from corpus.batch import Batch, MelDataset, collate
from corpus.batch_plan import BatchPlan, item_seed

MAX_AUTO_WORKERS = 8
SHARED_MEMORY = Path("/dev/shm")  # where batches of other processes lie; containers often give it 64 MB
LOADED_AHEAD = 2  # batches by each process
SILENCE_S = 300.0  # after which a process that loads a batch counts as dead
FEW_CORES = 4
WORKERS_BESIDE_GPU = 2
DEATHS_IN_VAIN = 3  # in a row, without a batch in between


class PlannedBatches(Dataset[Batch]):
    """The batches of a plan, or one process's part of each, padded as the whole batch is. A batch is its own key."""

    def __init__(self, dataset: MelDataset, plan: BatchPlan, *, r: int, part: int = 0) -> None:
        self.dataset, self.plan, self.r, self.part = dataset, plan, r, part

    def __getitem__(self, batch: Sequence[int]) -> Batch:
        items = [self.dataset[index] for index in self.plan.part(batch, self.part)]
        collated = collate(items, r=self.r, stats=self.dataset.stats, pad_to=self.plan.shape(batch))
        return collated if self.part < len(batch) else replace(collated, counts=False)


def make_loader(
    dataset: MelDataset,
    plan: BatchPlan,
    *,
    epoch: int,
    r: int,
    first_batch: int = 0,
    num_workers: int = 0,
    pin_memory: bool = False,
    part: int = 0,
    is_endless: bool = False,
    tell: Callable[[str], None] = LOG.warning,
) -> Iterable[Batch]:
    """The batches of one epoch from `first_batch` on, the same for any number of workers; of each one process's part.

    is_endless: then the epochs after it, by the same workers, which load ahead across the borders. Iterating draws
    nothing from torch's global generator, so that a resumed epoch leaves the model's dropout alone. tell: is told of
    workers that died and were replaced; UserError if that is in vain.
    """
    assert plan.frame_multiple % r == 0, f"frame_multiple={plan.frame_multiple} is no multiple of r={r}"
    batches = plan.epoch(epoch)[first_batch:]
    num_workers = workers_that_fit(num_workers, dataset, plan)

    def loader(n_done: int) -> Iterable[Batch]:
        return DataLoader(
            PlannedBatches(dataset, plan, r=r, part=part),
            batch_size=None,  # each item is a batch
            sampler=islice(_and_later_epochs(batches, plan, epoch), n_done, None) if is_endless else batches[n_done:],
            num_workers=num_workers,
            pin_memory=pin_memory,
            prefetch_factor=LOADED_AHEAD if num_workers else None,
            timeout=SILENCE_S if num_workers else 0,
            multiprocessing_context=_worker_context() if num_workers else None,
            generator=torch.Generator().manual_seed(item_seed(plan.seed, epoch, 0)),
        )

    return _whoever_dies(loader, tell) if num_workers else loader(0)


def _whoever_dies(loader: Callable[[int], Iterable[Batch]], tell: Callable[[str], None]) -> Iterator[Batch]:
    """Every batch once: behind the last one that came, new processes go on when one has died."""
    n_done = in_vain = 0
    while True:
        try:
            for batch in loader(n_done):
                yield batch
                n_done, in_vain = n_done + 1, 0
            return
        except (RuntimeError, OSError, EOFError) as error:
            if not _is_death(error):
                raise
            death, in_vain = first_line(error), in_vain + 1
        if in_vain == DEATHS_IN_VAIN:
            raise UserError(
                f"the processes that load batches died {in_vain} times in a row before one came ({death}): is there "
                "memory for them (free -h)? num_workers=0 loads in the training process itself"
            )
        tell(f"a process that loads batches died ({death}); new ones go on behind the last batch, none is lost")


def _is_death(error: Exception) -> bool:
    """Of a loader process, and no error that it raised: those begin with `Caught`."""
    is_connection = isinstance(error, OSError | EOFError)  # how a death may show first: its socket is gone
    is_told = any(words in str(error) for words in ("exited unexpectedly", "is killed by signal", "timed out after"))
    return is_told or (is_connection and not str(error).startswith("Caught"))


def workers_that_fit(
    num_workers: int,
    dataset: MelDataset,
    plan: BatchPlan,
    *,
    memory: Path = SHARED_MEMORY,
    tell: Callable[[str], None] = LOG.warning,
) -> int:
    """As many processes as asked for, or none where their batches have no room in shared memory, which is told once."""
    if not num_workers or not memory.is_dir():
        return num_workers
    needed = (num_workers * LOADED_AHEAD + 1) * largest_batch_bytes(dataset, plan)
    free = shutil.disk_usage(memory).free
    if needed <= free:
        return num_workers
    _tell_once(
        tell,
        f"{memory} has {free / 1e6:.0f} MB free, and the batches of num_workers={num_workers} may need "
        f"{needed / 1e6:.0f} MB: batches are loaded without processes (docker run --shm-size=1g gives more)",
    )
    return 0


def largest_batch_bytes(dataset: MelDataset, plan: BatchPlan) -> int:
    """Of text (int64), mel and gate (float32), padded as the largest batch of an epoch is."""
    n_mels = dataset[0].mel.shape[0]
    shapes = [(len(batch), *plan.shape(batch)) for batch in plan.epoch(0)]
    return max(n * (8 * n_tokens + 4 * (n_mels + 1) * n_frames) for n, n_tokens, n_frames in shapes)


_told: set[str] = set()


def _tell_once(tell: Callable[[str], None], message: str) -> None:
    if message not in _told:
        _told.add(message)
        tell(message)


def _and_later_epochs(batches: Sequence[Sequence[int]], plan: BatchPlan, epoch: int) -> Iterator[Sequence[int]]:
    yield from batches
    for later in count(epoch + 1):
        yield from plan.epoch(later)


def _worker_context() -> str:
    # fork copies locks that the trackers' threads or CUDA may hold at that moment
    return "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"


def loader_workers(setting: int | str, *, feeds_gpu: bool, n_cores: int | None = None) -> int:
    """`num_workers` as a number.

    "auto" on up to 4 cores: 0, as mels come from the cache and the model needs the cores more; 2 where a GPU trains,
    whose steps would wait for a batch.
    """
    if setting != "auto":
        return int(setting)
    cores = n_cores or n_processors()
    if cores <= FEW_CORES:
        return WORKERS_BESIDE_GPU if feeds_gpu else 0
    return min(MAX_AUTO_WORKERS, cores // 2)
