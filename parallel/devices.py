"""The device that a command computes on: what was asked for, if it is there."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from common.errors import UserError, first_line, is_out_of_memory

NVIDIA_DRIVER = Path("/proc/driver/nvidia/gpus")
LONGEST_LOOK_S = 10.0


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


def idle_gpu() -> str | None:
    """Why the CPU computes although this machine has an NVIDIA GPU; None where there is none, or nobody wants it."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if torch.cuda.is_available() or hidden in ("", "-1") or not _has_nvidia_gpu():
        return None
    because = f"; CUDA_VISIBLE_DEVICES={hidden} may name none that is there" if hidden else ""
    return f"this machine has an NVIDIA GPU, but computes on the CPU: {_why_no_gpu()}{because}"


def _has_nvidia_gpu() -> bool:
    """As its driver tells, without PyTorch."""
    if any(NVIDIA_DRIVER.glob("*")):
        return True
    if (command := shutil.which("nvidia-smi")) is None:  # Windows has it, and Linux inside of Windows
        return False
    try:
        listed = subprocess.run([command, "-L"], capture_output=True, text=True, timeout=LONGEST_LOOK_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return listed.returncode == 0 and "GPU 0" in listed.stdout


def _why_no_gpu() -> str:
    if torch.version.cuda is None and torch.version.hip is None:
        return f"this PyTorch ({torch.__version__}) was built without CUDA (see docs/quickstart.md#install)"
    return "PyTorch finds no GPU that it can use here (nvidia-smi tells what the driver sees)"
