"""Processes that train one model together: who they are, what they agree on, what they add up.

Every process computes a part of each step's batch. Whatever one of them alone can know (a signal, the clock, a full
disk, what the run directory holds) is agreed before anybody acts on it, so that all take the same steps and none waits
for another that has left. `SINGLE_PROCESS` is the group of one: its methods return what they are given.
"""

import hashlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed.rendezvous import rendezvous

from common.cli import expect_foreign_threads
from common.errors import UserError
from common.log import LOG
from hparams import DistributedParams
from parallel.devices import device_of
from parallel.heartbeat import Heartbeat, heartbeat_of
from parallel.rendezvous import Meeting

T = TypeVar("T")
# What processes wait for in the host group: a validation, a slow disk, the first one's pass over a large corpus. A
# process that dies is noticed at once, by its closed connections, whatever this is.
PATIENCE = timedelta(hours=12)
LOOKS_FOR_PARENT_EVERY_S = 1.0
FIRST_ONE_ENDS_S = 3.0
PARTING = timedelta(seconds=5)  # how long a process waits for the others before it ends with its error



@dataclass(frozen=True)
class ProcessRank:
    """One process of several: its number, of how many, which of its machine's, and where they meet."""

    rank: int
    size: int
    local_rank: int
    url: str  # "env://" where a launcher has said it in the environment

    @property
    def has_launcher(self) -> bool:
        return self.url == "env://"


def resolve_rank(
    hp: DistributedParams, *, rank: int | None, n_gpus: int | None, environment: Mapping[str, str] = os.environ
) -> ProcessRank | None:
    """Where this process stands: as a launcher says in the environment, or as --rank and --n_gpus do; None = alone.

    UserError where they don't make one sense.
    """
    if {"RANK", "WORLD_SIZE", "LOCAL_RANK"} <= environment.keys():
        if rank is not None or n_gpus is not None:
            raise UserError("--rank and --n_gpus of train.py are the launcher's to say: give --n_gpus to the launcher")
        n, size, local = (int(environment[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
        return ProcessRank(n, size, local, "env://") if size > 1 else None
    if rank is None:
        if n_gpus is not None and n_gpus > 1:
            raise UserError(
                f"train.py is one process, and --n_gpus {n_gpus} asks for {n_gpus}; start them with "
                f"`python multiproc.py train.py ... --n_gpus {n_gpus}`, or each by hand with --rank and "
                '--hparams "distributed_run=True"'
            )
        if hp.distributed_run:
            LOG.warning(
                "distributed_run=True, but this is ONE process: it trains alone, batch_size utterances a step. "
                "For several: python multiproc.py train.py ... --n_gpus N"
            )
        return None
    size = n_gpus or 1
    if not hp.distributed_run:
        raise UserError(f'--rank {rank} needs --hparams "distributed_run=True", to join {size} processes at dist_url')
    if rank >= size:
        raise UserError(f"--rank {rank} needs --n_gpus of at least {rank + 1} (ranks count from 0), not {n_gpus}")
    return ProcessRank(rank, size, rank % (torch.cuda.device_count() or size), hp.dist_url) if size > 1 else None


@dataclass(frozen=True)
class ProcessGroup:
    """The process group of a run. Every method is a collective: call it on all ranks."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    device: torch.device = torch.device("cpu")
    host: Any = None  # a gloo process group, for what is not on the device
    heartbeat: Heartbeat = Heartbeat(None)  # beats before this process waits for others; patient where they work long

    @property
    def is_first(self) -> bool:
        """The one that writes, validates and speaks to people."""
        return self.rank == 0

    # -- agreeing ---------------------------------------------------------------------------------------------

    def all_reduce_max(self, *values: float) -> tuple[int, ...]:
        """Element-wise maximum over ranks, truncated to int; for flags this is a logical or."""
        self.heartbeat.beat()
        counts = torch.tensor([int(value) for value in values])
        if self.size > 1:
            dist.all_reduce(counts, dist.ReduceOp.MAX, group=self.host)
        return tuple(counts.tolist())

    def all_reduce_sum(self, values: Mapping[str, float]) -> dict[str, float]:
        """The sum over ranks under each name; every rank gives the same names."""
        if self.size == 1:
            return dict(values)
        sums = torch.tensor(list(values.values()), dtype=torch.float64)
        dist.all_reduce(sums, group=self.host)
        return dict(zip(values, sums.tolist(), strict=True))

    def broadcast(self, value: T) -> T:
        """Rank 0's value."""
        if self.size == 1:
            return value
        box = [value]
        with self._patience():
            dist.broadcast_object_list(box, src=0, group=self.host)
        return box[0]

    def all_gather(self, value: T) -> list[T]:
        """The values of all ranks, in their order."""
        if self.size == 1:
            return [value]
        values: list[T | None] = [None] * self.size
        with self._patience():
            dist.all_gather_object(values, value, group=self.host)
        return cast(list[T], values)

    def run_on_rank0(self, make: Callable[[], T]) -> T:
        """What `make` returns on rank 0; its UserError is raised on every rank."""
        with self._patience():
            made, error = _attempt(make) if self.is_first else (None, None)
        made, error = self.broadcast((made, error))
        if error is not None:
            raise error
        return cast(T, made)

    def run_one_at_a_time(self, make: Callable[[], T]) -> T:
        """What `make` returns on each rank. One rank of each machine goes first and fills the caches for the others.

        The UserError of any rank is raised on every rank.
        """
        made: T | None = None
        for is_mine in (self.local_rank == 0, self.local_rank != 0):
            error: UserError | None = None
            if is_mine:
                with self._patience():
                    made, error = _attempt(make)
            for one in self.all_gather(error):
                if one is not None:
                    raise one
        return cast(T, made)

    @contextmanager
    def _patience(self) -> Iterator[None]:
        """Around what may take hours: the pass over a large corpus, here or in another process."""
        self.heartbeat.beat(patience_s=PATIENCE.total_seconds())
        yield
        self.heartbeat.beat()

    def long_operation(self) -> None:
        """From here on this process may be silent for hours: training is over, and files are written."""
        self.heartbeat.beat(patience_s=PATIENCE.total_seconds())

    def with_heartbeat(self, items: Iterable[T]) -> Iterator[T]:
        """The items; asking for each is a heartbeat."""
        for item in items:
            self.heartbeat.beat()
            yield item

    # -- adding up --------------------------------------------------------------------------------------------

    def all_reduce_sum_on_device(self, *counts: Tensor | int) -> tuple[Tensor | int, ...]:
        """The sum of each count [] over ranks, on the device, where tensors are already; nothing waits for it."""
        if self.size == 1:
            return counts
        # a copy of a number from the host would wait for the device; filling doesn't
        on_device = [c if isinstance(c, Tensor) else torch.full((), c, device=self.device) for c in counts]
        sums = torch.stack(on_device)
        dist.all_reduce(sums)
        return tuple(sums)

    def all_reduce_gradients(self, parameters: Iterable[Tensor], *, compression: str = "none") -> None:
        """Every `.grad` [...] becomes the sum over ranks, the same bits on each; sent as bf16 if asked to.

        Which parameters have one follows from the settings, so it is the same everywhere.
        """
        if self.size == 1:
            return
        self.heartbeat.beat()
        with_gradient = [p for p in parameters if p.grad is not None]
        flat = torch.cat([cast(Tensor, p.grad).reshape(-1) for p in with_gradient])
        sent = flat.to(torch.bfloat16) if compression == "bf16" else flat
        dist.all_reduce(sent)
        parts = sent.to(flat.dtype).split([p.numel() for p in with_gradient])
        for parameter, part in zip(with_gradient, parts, strict=True):
            parameter.grad = part.view_as(parameter)

    def all_reduce_mean(self, tensors: Iterable[Tensor]) -> None:
        """Every floating-point tensor [...] becomes the mean over ranks."""
        if self.size == 1:
            return
        floating = [t for t in tensors if t.is_floating_point()]
        if floating:
            flat = torch.cat([t.reshape(-1) for t in floating])
            dist.all_reduce(flat)
            for tensor, part in zip(floating, (flat / self.size).split([t.numel() for t in floating]), strict=True):
                tensor.copy_(part.view_as(tensor))

    def broadcast_tensors(self, tensors: Iterable[Tensor]) -> None:
        """Every tensor [...] becomes rank 0's."""
        for tensor in tensors if self.size > 1 else ():
            dist.broadcast(tensor.detach(), src=0)

    # -- randomness -------------------------------------------------------------------------------------------

    def seed_by_rank(self, seed: int, *, step: int = 0) -> None:
        """Another random state on every rank but 0, so that each draws its own dropout."""
        if self.rank:
            digest = hashlib.sha256(f"{seed},{self.rank},{step}".encode("ascii")).digest()
            torch.manual_seed(int.from_bytes(digest[:8], "big") >> 1)

    def random_state(self) -> dict[str, Any]:
        """Of this process's generators, for the checkpoint."""
        is_cuda = self.device.type == "cuda"
        return {
            "torch_rng": torch.get_rng_state(),
            "cuda_rng": [torch.cuda.get_rng_state(self.device)] if is_cuda else [],
        }

    def restore_random_state(self, by_rank: Sequence[Mapping[str, Any]], *, seed: int, step: int) -> None:
        """This process's own, where a checkpoint has it: by_rank holds those of the processes that saved it."""
        if len(by_rank) != self.size:
            LOG.warning(
                "saved by %d processes, going on with %d: a step now has %d times batch_size utterances",
                len(by_rank),
                self.size,
                self.size,
            )
        if self.rank >= len(by_rank):
            self.seed_by_rank(seed, step=step)
            return
        torch.set_rng_state(by_rank[self.rank]["torch_rng"])
        if self.device.type == "cuda" and by_rank[self.rank]["cuda_rng"]:
            torch.cuda.set_rng_state(by_rank[self.rank]["cuda_rng"][0], self.device)


SINGLE_PROCESS = ProcessGroup()


def _attempt(make: Callable[[], T]) -> tuple[T | None, UserError | None]:
    try:
        return make(), None
    except UserError as error:
        return None, error


@contextmanager
def process_group(process: ProcessRank | None, hp: DistributedParams) -> Iterator[ProcessGroup]:
    """The group that this process is one of, until the block ends. UserError if a GPU that it needs isn't there."""
    heartbeat = heartbeat_of(int(os.environ.get("LOCAL_RANK", "0")))
    if heartbeat.path is not None or (process is not None and process.has_launcher):
        _end_with(os.getppid())
    if process is None:
        yield ProcessGroup(device=device_of("auto"), heartbeat=heartbeat)
        return
    device = torch.device("cpu")
    if torch.cuda.is_available():
        if process.local_rank >= torch.cuda.device_count():
            raise UserError(
                f"process {process.local_rank} of this machine needs a GPU of its own, and there are "
                f"{torch.cuda.device_count()}; start fewer"
            )
        device = torch.device("cuda", process.local_rank)
        torch.cuda.set_device(device)
    backend = chosen_backend(hp, device, is_first=process.rank == 0)
    expect_foreign_threads()  # gloo's may outlive the group by a moment
    dist.init_process_group(
        backend,
        store=_meeting(process),
        rank=process.rank,
        world_size=process.size,
        timeout=PATIENCE if backend == "gloo" else None,
        device_id=device if backend == "nccl" else None,
    )
    try:
        host = dist.group.WORLD if backend == "gloo" else dist.new_group(backend="gloo", timeout=PATIENCE)
        yield ProcessGroup(process.rank, process.size, process.local_rank, device, host, heartbeat)
        dist.barrier(group=host)  # whoever hosts the rendezvous must not leave before the others
    except UserError:  # mostly everybody's: nobody leaves while another still reads what it is
        with suppress(RuntimeError):  # but not where it is one process's own
            dist.monitored_barrier(group=host, timeout=PARTING)
        if process.rank:
            time.sleep(FIRST_ONE_ENDS_S)  # the launcher shows what another says unless the first one ended so too
        raise
    finally:
        dist.destroy_process_group()


def _meeting(process: ProcessRank) -> dist.Store:
    """Where the processes find each other's addresses; after a restart, not those of the ones that are gone."""
    if not process.has_launcher:
        return Meeting(process.url, process.rank, process.size).store()
    store, _, _ = next(rendezvous(process.url, process.rank, process.size))
    return dist.PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)


def chosen_backend(hp: DistributedParams, device: torch.device, *, is_first: bool) -> str:
    """dist_backend, or gloo where NCCL can't be."""
    has_nccl = device.type == "cuda" and dist.is_nccl_available()
    if hp.dist_backend == "nccl" and not has_nccl:
        if is_first:
            LOG.warning("dist_backend=nccl needs NVIDIA's GPUs and NCCL, which are not here: the processes use gloo")
        return "gloo"
    return hp.dist_backend


def _end_with(parent: int) -> None:
    """Ends this process, saved, when its launcher has died without a word (kill -9), as nobody else would."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOKS_FOR_PARENT_EVERY_S)
        LOG.warning("the launcher (multiproc.py) is gone: this process saves and ends")
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="launcher watch", daemon=True).start()


def mean_over_processes(value: Tensor) -> Tensor:
    """The mean of value [...] over ranks, where there are several: they must not weigh the same step differently."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return value
    total = value.clone()
    distributed.all_reduce(total)
    return total / distributed.get_world_size()
