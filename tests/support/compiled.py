"""The compiled loops once for all tests: each has a cache of its own, and compiling takes ten seconds of processor."""

import os
import subprocess
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

from support.paths import REPOSITORY

SHARED = REPOSITORY / ".pytest_cache" / "compiled"


@cache
def compile_once() -> None:
    """By the product, in a process of its own; nothing to do where an earlier test run left them."""
    SHARED.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        [sys.executable, "-c", "from kernels import native; native.loaded()"],
        cwd=REPOSITORY,
        env={**os.environ, "TACOTRON2_CACHE": str(SHARED)},
        check=True,
        capture_output=True,
    )


def share_compiled_loops(cache_folder: Path) -> None:
    """Those that are there, into a cache where nothing has been compiled yet. Names tell of what they are made."""
    for library in SHARED.glob("native-*.so"):
        cache_folder.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):  # several processes of a test run share a cache
            os.symlink(library, cache_folder / library.name)
