"""Where the trainer keeps what it can always make again: demo voice, feature caches, built kernels."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from common.files import atomic_file, explain_write_errors

CACHE_VARIABLE = "TACOTRON2_CACHE"
FOLDER_NAME = "tacotron2-trainer"


def cache_directory() -> Path:
    """The folder for everything that may be deleted and rebuilt; not created here.

    $TACOTRON2_CACHE itself, else tacotron2-trainer under $XDG_CACHE_HOME, else under ~/.cache.
    """
    own = os.environ.get(CACHE_VARIABLE, "").strip()
    if own:
        return Path(own).expanduser().absolute()
    shared = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG base directory specification (0.8) tells programs to ignore a relative path here.
    parent = Path(shared) if Path(shared).is_absolute() else Path("~/.cache").expanduser()
    return parent / FOLDER_NAME


@contextmanager
def cache_file(path: Path) -> Iterator[IO[bytes]]:
    """UserError if the disk refuses: full, read-only, not ours."""
    way_on = f"free space there, or set {CACHE_VARIABLE} to another folder"
    with explain_write_errors(f"the feature cache at {path}", next_step=way_on), atomic_file(path) as file:
        yield file
