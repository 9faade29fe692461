"""Loops cut into chunks of a fixed number of steps, which run on buffers that stay where they are.

A `Steps` is a run of n steps on tensors, each with a declared role. It can run on the whole sequence at once. Or each
chunk is copied to the fixed buffers, runs there, and its results are copied back: then one recording
(`kernels.cuda_graphs`) serves sequences of any length. Nothing that autograd keeps lies in fixed buffers, so different
loops share them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any, ClassVar, Literal, NamedTuple
from weakref import WeakValueDictionary

import torch
from torch import Tensor
from torch.nn import functional as F

from kernels.cuda_graphs import record_graph

# Sequences: input, output or inout [n or n + 1, ...], or state [n + 1, ...], where each step reads a row and writes the
# next. For all steps together: constant, or accumulator, to which each step adds.
Role = Literal["input", "output", "inout", "state", "constant", "accumulator"]
SEQUENCES: tuple[Role, ...] = ("input", "output", "inout", "state")
# In a recording. The last chunk runs to its end in vain; each chunk costs some twenty copies, as much as half a step
STEPS_RECORDED = 32
TEXT_MULTIPLE = 32  # symbols: each length of texts needs recordings of its own
RECORDINGS_KEPT = 96  # 2 loops there and back, in 16 text lengths and some batch sizes


def role(name: Role, *, may_lack: bool = False) -> Any:
    """For the fields of a `Steps`; without it, a field is a constant."""
    metadata = {"role": name}
    return field(default=None, metadata=metadata) if may_lack else field(metadata=metadata)


@dataclass(frozen=True, kw_only=True, eq=False)
class Steps:
    """A run of steps on buffers. Subclasses name tensors only; None stands for what is not there."""

    runs_backward: ClassVar[bool] = False

    def run(self) -> None:
        """Does all steps. Accumulators are added to; states begin with the row that is there."""
        raise NotImplementedError

    @property
    def n_steps(self) -> int:
        return min(len(tensor) for _, tensor in self.tensors(*SEQUENCES))

    def tensors(self, *roles: Role) -> Iterator[tuple[str, Tensor]]:
        """Name and tensor [...] of the fields in these roles."""
        for each in fields(self):
            tensor = getattr(self, each.name)
            if tensor is not None and each.metadata.get("role", "constant") in roles:
                yield each.name, tensor


def run_steps(steps: Steps, *, chunk: int | None) -> None:
    """`steps.run()`, all at once or `chunk` steps at a time; there must be a multiple of it."""
    if chunk is None:
        steps.run()
    else:
        # mypy takes the hash of instances for that of their class
        chunk_for(type(steps), specs_of(steps, chunk)).run(steps)  # type: ignore[arg-type]


def pad_to_multiple(x: Tensor, dim: int, multiple: int) -> Tensor:
    """x [...] with zeros at the end of `dim`, so that its size there is a multiple."""
    behind = [0, 0] * (x.dim() - dim - 1) + [0, -x.size(dim) % multiple]
    return F.pad(x, behind)


class Spec(NamedTuple):
    """A buffer that can be made."""

    name: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device


def specs_of(steps: Steps, chunk: int) -> tuple[Spec, ...]:
    """What `chunk` steps need instead of all."""
    n = steps.n_steps
    assert n % chunk == 0, f"{n} steps are no multiple of {chunk}"
    specs = []
    for name, tensor in steps.tensors("constant", "accumulator"):
        specs.append(Spec(name, tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.device))
    for name, tensor in steps.tensors(*SEQUENCES):
        assert tensor.is_contiguous(), name
        shape = (chunk + tensor.size(0) - n, *tensor.shape[1:])
        specs.append(Spec(name, shape, tensor.stride(), tensor.dtype, tensor.device))
    return tuple(specs)


fixed_buffers: WeakValueDictionary[Spec, Tensor] = WeakValueDictionary()


def shared_buffer(spec: Spec) -> Tensor:
    """The one buffer [spec.shape] of that name, shape and strides, zeros at first, as long as anybody has it."""
    buffer = fixed_buffers.get(spec)
    if buffer is None:
        buffer = torch.empty_strided(spec.shape, spec.strides, dtype=spec.dtype, device=spec.device).zero_()
        fixed_buffers[spec] = buffer
    return buffer


@lru_cache(maxsize=RECORDINGS_KEPT)
def chunk_for(kind: Callable[..., Steps], specs: tuple[Spec, ...]) -> "Chunk":
    return Chunk(kind, specs)


class Chunk:
    """Fixed buffers of some steps, and the recording that runs on them."""

    def __init__(self, kind: Callable[..., Steps], specs: tuple[Spec, ...]) -> None:
        self.steps = kind(**{spec.name: shared_buffer(spec) for spec in specs})
        self.recording = record_graph(self.steps.run, specs[0].device)

    def run(self, whole: Steps) -> None:
        """All steps of `whole`, of which each chunk passes through the buffers."""
        mine, n = self.steps, self.steps.n_steps
        for name, buffer in mine.tensors("constant", "accumulator"):
            buffer.copy_(getattr(whole, name))
        starts = range(0, whole.n_steps, n)
        for start in reversed(starts) if whole.runs_backward else starts:
            for name, buffer in mine.tensors("input", "inout"):
                buffer.copy_(getattr(whole, name)[start : start + len(buffer)])
            for name, buffer in mine.tensors("state"):
                buffer[0].copy_(getattr(whole, name)[start])
            self._replay()
            for name, buffer in mine.tensors("output", "inout"):
                getattr(whole, name)[start : start + len(buffer)].copy_(buffer)
            for name, buffer in mine.tensors("state"):
                getattr(whole, name)[start + 1 : start + len(buffer)].copy_(buffer[1:])
        for name, buffer in mine.tensors("accumulator"):
            getattr(whole, name).copy_(buffer)

    def _replay(self) -> None:
        if self.recording is None:
            self.steps.run()
        else:
            self.recording.replay()
