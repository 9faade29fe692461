"""Loops whose activations are computed again for the backward pass, a chunk of steps at a time, instead of kept."""

from collections.abc import Callable
from math import isqrt
from typing import TypeVar

import torch
from torch.utils.checkpoint import checkpoint

State = TypeVar("State")


def states_of(
    run: Callable[[int, int, State], list[State]],
    first: State,
    n_steps: int,
    *,
    chunk: int | None,
    draws: bool = False,
) -> list[State]:
    """The states after each of n_steps >= 1 steps, where `run(start, stop, state)` gives those of steps start..stop-1.

    With `chunk`, autograd keeps only the states themselves and runs each chunk again when its gradient is due: the
    same numbers to the last bit, since the graph is the same. draws: `run` uses random numbers, which must then be
    drawn again alike. States are named tuples, so that PyTorch finds the tensors' device in them.
    """
    if chunk is None or not torch.is_grad_enabled():
        return run(0, n_steps, first)
    states: list[State] = []
    for start in range(0, n_steps, chunk):
        before = states[-1] if states else first
        stop = min(start + chunk, n_steps)
        states += checkpoint(run, start, stop, before, use_reentrant=False, preserve_rng_state=draws)
    return states


def checkpoint_chunk_size(n_steps: int, size: int | None) -> int:
    """Steps per chunk; None = the square root of all, where kept states and one chunk's activations balance."""
    return size or max(1, isqrt(n_steps))
