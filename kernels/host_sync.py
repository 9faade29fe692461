"""Where the host would wait for a GPU. A training step that never does keeps the device busy from one end to the other.

On a GPU, CUDA itself tells. On a CPU nothing waits, so there every call and every operator is looked at, as if its
tensors lay on a GPU: what tests can prove without one. Not seen are copies that no call names, and whether memory that
is copied from is pinned.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

FORBID_VARIABLE = "TACOTRON2_FORBID_WAITS"
# The shape of the result, or the result itself on the host, depends on values
OPERATORS = frozenset((
    "_local_scalar_dense", "nonzero", "masked_select", "_unique", "_unique2", "unique_dim", "unique_consecutive",
    "unique_dim_consecutive", "_pack_padded_sequence", "_ctc_loss", "equal", "allclose", "is_nonzero", "bincount",
))  # fmt: skip
METHODS = frozenset((
    "tolist", "item", "numpy", "cpu", "cuda", "__array__", "__bool__", "__int__", "__float__", "__index__",
    "__complex__", "__contains__",
))  # fmt: skip
INDEXING = frozenset(("index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"))
MASKS = (torch.bool, torch.uint8)

_may_wait: ContextVar[bool] = ContextVar("may_wait", default=False)


def is_gpu(device: torch.device) -> bool:
    """Whether work there goes on beside the host, so that waiting costs."""
    return device.type == "cuda"


def read_async(tensor: Tensor) -> Callable[[], Any]:
    """Starts copying values [...] to the host. Calling what is returned waits for them alone, not for later work, and
    gives them as (nested lists of) numbers.
    """
    if tensor.device.type != "cuda":
        return tensor.tolist
    copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    copy.copy_(tensor, non_blocking=True)
    is_there = torch.cuda.Event()
    is_there.record()

    def values() -> Any:
        is_there.synchronize()
        return copy.tolist()

    return values


def are_waits_forbidden() -> bool:
    """Whether $TACOTRON2_FORBID_WAITS asks training to stop where a step waits for a GPU: the proof that none does."""
    return os.environ.get(FORBID_VARIABLE, "") not in ("", "0")


class HostSyncError(RuntimeError):
    """Inside `forbid_host_sync`, something needs a value that a GPU would still be computing."""


@contextmanager
def forbid_host_sync(device: torch.device) -> Iterator[None]:
    """Whatever makes the host wait for the device raises: on a GPU PyTorch's own error, on a CPU `HostSyncError`."""
    with ExitStack() as stack:
        if device.type == "cuda":
            stack.enter_context(_sync_debug_mode("error"))
        else:
            stack.enter_context(_Calls())
            stack.enter_context(_Operators())
        yield


@contextmanager
def allow_host_sync(device: torch.device) -> Iterator[None]:
    """Within `forbid_host_sync`, for what has to wait."""
    before = _may_wait.set(True)
    try:
        with ExitStack() as stack:
            if device.type == "cuda":
                stack.enter_context(_sync_debug_mode("default"))
            yield
    finally:
        _may_wait.reset(before)


@contextmanager
def _sync_debug_mode(mode: str) -> Iterator[None]:
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode(mode)
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


class _Calls(TorchFunctionMode):
    """Looks at what Python calls: on a CPU some of it reaches no operator."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if not _may_wait.get():
            if name in METHODS:
                raise HostSyncError(f"Tensor.{name} reads from the device")
            if name == "to" and not kwargs.get("non_blocking") and _names_a_device(args[1:], kwargs):
                caller = sys._getframe(1).f_globals["__name__"]
                if not caller.startswith("torch."):  # PyTorch's own code says it of tensors that are there already
                    raise HostSyncError("Tensor.to(device) without non_blocking waits for the copy")
            if name in ("tensor", "as_tensor") and kwargs.get("device") is not None:
                raise HostSyncError(f"torch.{name} copies values to the device and waits for it")
            if name in ("__getitem__", "__setitem__") and _has_list(args[1]):
                raise HostSyncError("a list as an index is copied to the device")
        return func(*args, **kwargs)


class _Operators(TorchDispatchMode):
    """Looks at what is computed, in the backward pass too."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        if not _may_wait.get():
            if name in OPERATORS or (name == "repeat_interleave" and kwargs.get("output_size") is None):
                raise HostSyncError(f"{func} needs values of the device")
            if name in INDEXING and any(isinstance(i, Tensor) and i.dtype in MASKS for i in args[1]):
                raise HostSyncError(f"{func} with a mask: the shape of what it finds depends on values")
        return func(*args, **kwargs)


def _names_a_device(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    return any(isinstance(value, torch.device | str | Tensor) for value in (*args, *kwargs.values()))


def _has_list(index: Any) -> bool:
    return any(isinstance(part, list) for part in (index if isinstance(index, tuple) else (index,)))
