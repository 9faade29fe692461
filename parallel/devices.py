"""The device that a command computes on: what was asked for, if it is there."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from common.errors import UserError, first_line, is_out_of_memory


class NoMemory(UserError):
    """A device has too little memory for what was asked."""


def device_of(wanted: str) -> torch.device:
    """auto: the GPU where there is one that works, else the CPU. cpu, cuda or cuda:N: that one, or UserError."""
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UserError(f"device {wanted}: {_why_no_gpu()}; leave --device out to take what there is, or say cpu")
    device, n = torch.device("cuda" if wanted == "auto" else wanted), torch.cuda.device_count()
    if (device.index or 0) >= n:
        there = "cuda:0 alone" if n == 1 else f"cuda:0 to cuda:{n - 1}"
        raise UserError(f"device {wanted}: there is no such GPU; this machine has {there}")
    return device


@contextmanager
def explain_no_memory(device: torch.device) -> Iterator[None]:
    """Where memory ends there, as on a GPU that trains meanwhile: NoMemory says what to do."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        instead = "--device cpu" if device.type != "cpu" else "fewer or shorter texts at once"
        said = first_line(error)[:200]
        raise NoMemory(f"too little memory on {device} ({said}); see who else uses it, or try {instead}") from error


def _why_no_gpu() -> str:
    if torch.version.cuda is None and torch.version.hip is None:
        return f"this PyTorch ({torch.__version__}) was built without CUDA (see docs/quickstart.md#install)"
    return "PyTorch finds no GPU that it can use here (nvidia-smi tells what the driver sees)"
