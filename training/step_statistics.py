"""Statistics accumulated between two training records."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from corpus.mel_statistics import MelStats, to_log_mel_units
from parallel.process_group import ProcessGroup
from run_directory.records import StepRecord
from training.batches import StepData
from training.train_step import StepOutcome


@dataclass
class StepStatistics:
    """The steps since the last record. Their losses stay on the device until `record` reads them."""

    losses: list[Mapping[str, Tensor]] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    frames: int = 0
    padded_frames: int = 0
    waited_s: float = 0.0
    skipped: int = 0
    began: float = field(default_factory=time.perf_counter)

    @property
    def n_steps(self) -> int:
        return len(self.losses) + self.skipped

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The clock stands still inside: validating and saving are no part of a step's time."""
        stopped = time.perf_counter()
        try:
            yield
        finally:
            self.began += time.perf_counter() - stopped

    def add(self, done: StepOutcome, losses: Mapping[str, Tensor]) -> None:
        """One step and its losses [] by name; one that was not taken counts, but its losses don't."""
        if done.is_taken:
            self.losses.append(losses)
            self.norms.append(done.norm)
        else:
            self.skipped += 1

    def add_data(self, data: StepData) -> None:
        """What a step was made of, and how long it was waited for."""
        self.waited_s += data.waited_s
        for batch in data.micro_batches:
            self.frames += batch.n_frames
            self.padded_frames += batch.mel.size(0) * batch.mel.size(2)

    def record(
        self,
        *,
        step: int,
        epoch: float,
        learning_rate: float,
        stats: MelStats,
        group: ProcessGroup,
        modules: Mapping[str, Mapping[str, float]],
    ) -> StepRecord:
        """Means over the steps, of all processes of the group, which call this together; waits for the device."""
        elapsed = time.perf_counter() - self.began
        names = sorted({name for losses in self.losses for name in losses})
        means = {m: torch.stack([x[m] for x in self.losses if m in x]).mean().item() for m in names}
        means = group.all_reduce_sum(means)  # each process has its part of every loss
        frames, padded_frames = group.all_reduce_sum({"n": self.frames, "padded": self.padded_frames}).values()
        return StepRecord(
            step=step,
            epoch=epoch,
            losses={m: to_log_mel_units(m, v, stats) for m, v in means.items()},
            grad_norm=torch.tensor(self.norms).mean().item() if self.norms else float("nan"),
            learning_rate=learning_rate,
            frames_per_s=frames / elapsed,
            step_s=elapsed / self.n_steps,
            data_wait=self.waited_s / elapsed,
            padding=1.0 - frames / padded_frames,
            skipped=self.skipped,
            modules=modules,
        )
