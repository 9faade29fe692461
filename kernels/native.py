"""The compiled loops: built on first use where a C++ compiler is, and kept in the cache directory."""

import ctypes
import hashlib
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.cache_dir import cache_directory
from common.files import write_atomic
from common.log import LOG

HERE = Path(__file__).parent
SOURCES = (HERE / "native.cpp", HERE / "native_inference.cpp")
HEADERS = tuple(sorted(HERE.glob("native*.h")))
FLAGS = ("-O3", "-march=native", "-std=c++17", "-fopenmp", "-shared", "-fPIC")
ROWS_READ_AT_ONCE = 16  # by products in bf16; buffers they read need so many rows behind their end for each thread
PANEL = 64  # columns of a packed weight

_SIZES = ("n_threads", "T", "B", "D", "E", "A", "N", "L", "pad", "K", "start")
_BUFFERS = (
    "weight", "weight_back", "query", "query_back", "kernel", "kernel_back", "values", "bias", "v", "keys", "lengths",
    "mask", "gates", "states", "cells", "alignments", "queries", "padded", "grad_states", "grad_alignments",
    "grad_gates", "grad_queries", "grad_contexts", "grad_keys", "grad_kernel", "grad_v",
    "grad_cell", "to_last", "to_summed",
)  # fmt: skip


def fields_of(sizes: Sequence[str], buffers: Sequence[str]) -> list[tuple[str, Any]]:
    """Of a struct that begins with sizes and then has buffers."""
    return [(name, ctypes.c_int64) for name in sizes] + [(name, ctypes.c_void_p) for name in buffers]


class Arguments(ctypes.Structure):
    """The struct of the same name in `native.cpp`, field by field."""

    _fields_ = [*fields_of(_SIZES, _BUFFERS), ("scale", ctypes.c_double)]


def fill(arguments: ctypes.Structure, **values: float | Tensor | None) -> None:
    """Sets fields of the struct. Tensors [...] must be contiguous, of the types that its twin in C++ tells, and outlive
    the call.
    """
    for name, value in values.items():
        if isinstance(value, Tensor):
            assert value.is_contiguous() and value.device.type == "cpu", name
        setattr(arguments, name, value.data_ptr() if isinstance(value, Tensor) else value)


def run(loop: str, *, is_half: bool, **values: float | Tensor | None) -> None:
    """Calls one of the loops of training; values as `fill` takes them, tensors [...] by the names of the struct's
    fields.
    """
    arguments = Arguments(n_threads=torch.get_num_threads())
    fill(arguments, **values)
    call(f"run_{loop}", arguments, int(is_half))


def call(function: str, arguments: ctypes.Structure, kind: int) -> None:
    library = loaded()
    assert library is not None
    getattr(library, function)(ctypes.byref(arguments), kind)


def pack(matrix: Tensor, *, is_half: bool, units: int = 0) -> Tensor:
    """matrix [K, N] fp32 of any strides -> panels of 64 columns as products read them.

    With `units`, N = 4 * units are gates and each panel holds the four gates of 16 units.
    """
    K, N = matrix.shape
    dtype = torch.bfloat16 if is_half else torch.float32
    rows = -(-K // 32) * 32 if is_half else K
    out = torch.empty(-(-N // PANEL) * rows * PANEL, dtype=dtype)
    library = loaded()
    assert library is not None and matrix.dtype == torch.float32
    sizes = (ctypes.c_int64(n) for n in (*matrix.stride(), K, N, units, torch.get_num_threads()))
    library.pack(ctypes.c_void_p(matrix.data_ptr()), *sizes, ctypes.c_void_p(out.data_ptr()), int(is_half))
    return out


@cache
def loaded() -> ctypes.CDLL | None:
    """The library, compiled if need be; None where there is no compiler or no AVX2, which is logged."""
    if platform.machine() not in ("x86_64", "AMD64") or not vectors():
        LOG.info("this processor has neither AVX2 nor AVX-512: the decoder's loops run in PyTorch")
        return None
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        LOG.info("no C++ compiler found: the decoder's loops run in PyTorch, which takes up to twice as long")
        return None
    path = cache_directory() / f"native-{_digest(compiler)}.so"
    if not path.exists() and not _compile(compiler, path):
        return None
    library = ctypes.CDLL(str(path))
    if not library.prepare():
        LOG.info("the system keeps the matrix registers to itself: the decoder's loops run in PyTorch")
        return None
    return library


def _compile(compiler: str, path: Path) -> bool:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        built = Path(scratch) / path.name
        done = subprocess.run([compiler, *FLAGS, *map(str, SOURCES), "-o", str(built)], capture_output=True, text=True)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            names = ", ".join(path.name for path in SOURCES)
            LOG.warning("%s can't compile %s: the decoder's loops run in PyTorch (%s)", compiler, names, last)
            return False
        write_atomic(path, built.read_bytes())  # a power cut leaves no half library under this name
    return True


def _digest(compiler: str) -> str:
    """Of all that the compiled code depends on."""
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True).stdout
    sources = (path.read_text(encoding="utf-8") for path in (*SOURCES, *HEADERS))
    parts = (*sources, *FLAGS, version, processor_flags())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def vectors() -> str | None:
    """The processor's instructions that the loops are compiled for; None where they can't be."""
    flags = processor_flags().split()
    if "avx512f" in flags:
        return "AVX-512"
    return "AVX2" if {"avx2", "fma"} <= set(flags) else None


@cache
def processor_flags() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2] for line in lines if line.startswith("flags")), "")
