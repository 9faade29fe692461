"""Files that appear whole or not at all, and one message where the disk refuses them."""

import errno
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from common.encodings import as_text
from common.errors import UserError

# what a shell gives for <(command) and for the standard streams
PASSED_ON = ("/dev/fd/", "/dev/stdin", "/dev/stdout", "/dev/stderr", "/proc/self/fd/")
LEAST_ROOM_BYTES = 2**20  # a disk with less is full: many small things still fit
LONGEST_STEM = 50  # characters of a temporary file's name: of four bytes each they leave room for the rest


def has_no_end(path: Path) -> bool:
    """Whether to read it may last for ever: a named pipe waits for another program, and a device goes on."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):  # which opening will say
        return False
    is_regular = stat.S_ISREG(mode) or stat.S_ISDIR(mode)
    return not is_regular and not _is_passed_on(path)


def _is_passed_on(path: Path) -> bool:
    return path.as_posix().startswith(PASSED_ON)


def read_given(path: Path) -> bytes:
    """The content of a file that a user names. OSError if it can't be had, or could last for ever."""
    if has_no_end(path):
        raise OSError(errno.EINVAL, "it is a pipe or a device, and no file", str(path))
    return path.read_bytes()


def read_given_text(path: Path) -> str:
    """As `read_given`, of UTF-8 with or without a byte-order mark, lines ending in LF. NotText for anything else."""
    return as_text(read_given(path))


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write that takes the place of `path` at the end: the old content or the new one, never a half.

    Makes missing folders. If anything is raised inside, or the disk refuses (OSError), the old file stays. A device and
    what a shell passes on (/dev/null, /dev/stdout) are written to as they are, and a pipe with a name is refused.
    """
    if _is_passed_on(path) or has_no_end(path):
        with _named(path, path), _opened_device(path) as file:
            yield file
        return
    temporary = _temporary_beside(path)
    try:
        with _named(path, temporary), temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        with _named(path, temporary):
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_place(path: Path) -> None:
    """OSError where `atomic_file` could write nothing: asked before work that takes minutes. Makes missing folders."""
    if _is_passed_on(path) or has_no_end(path):
        _opened_device(path).close()
        return
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    temporary = _temporary_beside(path)
    with _named(path, temporary):
        temporary.touch(exist_ok=False)
    temporary.unlink()


def _temporary_beside(path: Path) -> Path:
    """In the same folder, which is made. Not of tempfile: its files are private to the user, and would stay so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{path.name[:LONGEST_STEM]}.{uuid.uuid4().hex}.tmp")


def _opened_device(path: Path) -> IO[bytes]:
    """A file in its place would be a disaster: nobody could write to /dev/null any more."""
    if stat.S_ISFIFO(path.stat().st_mode) and not _is_passed_on(path):
        raise OSError(errno.EINVAL, "it is a pipe, and no file", str(path))
    return path.open("wb", buffering=0)


@contextmanager
def _named(path: Path, temporary: Path) -> Iterator[None]:
    """Errors name the file that was asked for; the system names none where a disk is full."""
    try:
        yield
    except OSError as error:
        if error.filename in (None, str(temporary)):
            error.filename = str(path)
        raise


def write_atomic(path: Path, content: str | bytes) -> None:
    """Text (UTF-8) or bytes through `atomic_file`."""
    with atomic_file(path) as file:
        file.write(content.encode("utf-8") if isinstance(content, str) else content)


def is_disk_full(folder: Path) -> bool:
    """Whether what failed there may have failed for want of room, where it doesn't say so itself."""
    return shutil.disk_usage(folder).free < LEAST_ROOM_BYTES


@contextmanager
def explain_write_errors(what: str, *, next_step: str) -> Iterator[None]:
    """Any OSError inside (disk full, no such place, not allowed) becomes a UserError that says what to do next."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {what} ({why_refused(error)}); {next_step}") from error


def why_refused(error: OSError) -> str:
    """In words; the system's own "File exists" misleads where folders are made."""
    if isinstance(error, FileExistsError | NotADirectoryError):
        return f"{error.filename or 'it'} is a file where a folder should be"
    return error.strerror or str(error)
