"""The training data of a run, step by step, from where the run stands."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

from corpus.batch import Batch
from corpus.loader import loader_workers, make_loader
from data_utils import Corpus, plan_batches
from hparams import HParams
from recovery.ladder import Position
from training.progress import Progress


@dataclass(frozen=True)
class StepData:
    """What one optimiser step is made of. `at`: the position of its first micro-batch."""

    micro_batches: Sequence[Batch]
    at: Position
    waited_s: float


class TrainingBatches:
    """One process's share of the training batches, in the order that follows from seed and epoch."""

    def __init__(
        self,
        hp: HParams,
        corpus: Corpus,
        *,
        on_lost_loader: Callable[[str], None],
        pin_memory: bool = False,
        rank: int = 0,
        n_processes: int = 1,
    ) -> None:
        """on_lost_loader: told when a process that loads batches has died and is replaced."""
        self.hp, self.dataset, self.rank = hp, corpus.train, rank
        self.plan = plan_batches(corpus.train, hp, n_parts=n_processes)
        self._on_lost_loader, self._pin_memory = on_lost_loader, pin_memory
        self.in_epoch = lru_cache(maxsize=2)(self._count)

    def _count(self, epoch: int) -> int:
        """Batches of an epoch."""
        return len(self.plan.epoch(epoch))

    def steps(self, progress: Progress, *, r: Callable[[], int]) -> Iterator[StepData]:
        """The data of each optimiser step; moves `progress` on to where the next one begins. r: of the moment."""
        loaded: Position | None = None
        loader: Iterator[Batch] = iter(())
        while progress.epoch < self.hp.epochs:
            if progress.skip_data():
                continue
            left = self.in_epoch(progress.epoch) - progress.batch_in_epoch
            if left <= 0:  # resumed with other data or batches: this epoch is shorter now, and done
                progress.epoch, progress.batch_in_epoch = progress.epoch + 1, 0
                continue
            if loaded != progress.position:
                loader = iter(self._loader(progress.position, r()))
            began, at = time.perf_counter(), progress.position
            micro_batches = list(islice(loader, min(left, self.hp.gradient_accumulation_steps)))
            waited_s = time.perf_counter() - began
            progress.batch_in_epoch += len(micro_batches)
            if len(micro_batches) == left:
                progress.epoch, progress.batch_in_epoch = progress.epoch + 1, 0
            loaded = progress.position
            yield StepData(micro_batches, at, waited_s)

    def _loader(self, position: Position, r: int) -> Iterable[Batch]:
        epoch, first_batch = position
        return make_loader(
            self.dataset,
            self.plan,
            epoch=epoch,
            first_batch=first_batch,
            r=r,
            num_workers=loader_workers(self.hp.num_workers, feeds_gpu=self._pin_memory),
            pin_memory=self._pin_memory,
            part=self.rank,
            is_endless=True,
            tell=self._on_lost_loader,
        )

    def largest(self, epoch: int, *, r: int) -> Batch:
        """The batch of that epoch with the most frames, padding included."""
        batches = self.plan.epoch(epoch)
        largest = max(range(len(batches)), key=lambda i: len(batches[i]) * self.plan.shape(batches[i])[1])
        return next(iter(make_loader(self.dataset, self.plan, epoch=epoch, first_batch=largest, r=r)))
