"""What a CUDA graph does, on a CPU: the operators of a run are kept with the tensors they had, and done again on them.

Nothing of the Python code runs in a replay. So whatever it looked at, computed or allocated while it was recorded stays
as it was, as it does in a graph.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WITHOUT_KERNEL = frozenset((
    "view", "t", "unbind", "slice", "select", "expand", "unsqueeze", "squeeze", "transpose", "as_strided",
    "_unsafe_view", "empty", "new_empty", "empty_like",
))  # fmt: skip


class Tape(TorchDispatchMode):
    """Takes the place of a `torch.cuda.CUDAGraph`."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.done.append((func, args, kwargs or {}, result))
        return result

    @property
    def n_kernels(self) -> int:
        """Operators that compute."""
        return sum(func.overloadpacket.__name__ not in WITHOUT_KERNEL for func, *_ in self.done)

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, result in self.done:
            again = func(*args, **kwargs)
            for old, new in zip(tree_leaves(result), tree_leaves(again), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)  # to the address of the recording


def taped(work: Callable[[], None], device: torch.device) -> Tape:
    """Stands for `kernels.graphs.recorded`: a run to warm up, then the recording."""
    work()
    tape = Tape()
    with tape:
        work()
    return tape
