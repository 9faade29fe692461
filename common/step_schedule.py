"""The reduction factor r, frames per decoder step, over a run: one value, or `reduction_schedule`'s phases.

A large r teaches attention soon, as there are few steps and each must look far; a small r sounds finer. The projection
is sized for the largest r, and a smaller one uses its first n_mels * r outputs: no weight is ever reshaped.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import lcm

PHASE = re.compile(r"([0-9]{1,9}):([0-9]{1,3})")


@dataclass(frozen=True)
class Reduction:
    """phases: (first optimiser step, r), the first step 0, steps strictly rising."""

    phases: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, schedule: Sequence[str], n_frames_per_step: int) -> "Reduction":
        """Of `reduction_schedule` where it has phases, else `n_frames_per_step` throughout."""
        return cls(parse_schedule(schedule) if schedule else ((0, n_frames_per_step),))

    def at(self, step: int) -> int:
        """r of optimiser step `step` (the first is 1), and of what is validated, saved and spoken after it."""
        return [r for first, r in self.phases if first <= step][-1]

    @property
    def largest(self) -> int:
        return max(r for _, r in self.phases)

    @property
    def multiple(self) -> int:
        """What every padded T_mel must be a multiple of, so that a batch fits any phase."""
        return lcm(*(r for _, r in self.phases))

    def divides(self, n_frames: int) -> bool:
        """Whether so many frames are whole steps in every phase."""
        return n_frames % self.multiple == 0

    @property
    def last_change(self) -> int:
        return self.phases[-1][0]


def parse_schedule(schedule: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """`("0:6", "10000:3")` -> `((0, 6), (10000, 3))`. ValueError unless steps rise strictly from 0 and r >= 1."""
    matches = [PHASE.fullmatch(item.replace(" ", "")) for item in schedule]
    phases = tuple((int(match[1]), int(match[2])) for match in matches if match)
    steps = [step for step, _ in phases]
    rising = sorted(set(steps)) == steps and steps[:1] == [0]
    if None in matches or not rising or any(r < 1 for _, r in phases):
        raise ValueError(f"no reduction schedule: {list(schedule)}")
    return phases


def is_schedule(schedule: Sequence[str]) -> bool:
    """Whether `reduction_schedule` may hold it; an empty one means none."""
    try:
        parse_schedule(schedule or ("0:1",))
    except ValueError:
        return False
    return True
