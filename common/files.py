"""Files that appear whole or not at all, and one message where the disk refuses them."""

import errno
import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from common.errors import UserError

PASSED_ON = ("/dev/fd/", "/dev/stdin", "/proc/self/fd/")  # what a shell gives for <(command) and for standard input


def has_no_end(path: Path) -> bool:
    """Whether to read it may last for ever: a named pipe waits for another program, and a device goes on."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):  # which opening will say
        return False
    is_regular = stat.S_ISREG(mode) or stat.S_ISDIR(mode)
    return not is_regular and not path.as_posix().startswith(PASSED_ON)


def read_given(path: Path) -> bytes:
    """The content of a file that a user names. OSError if it can't be had, or could last for ever."""
    if has_no_end(path):
        raise OSError(errno.EINVAL, "it is a pipe or a device, and no file", str(path))
    return path.read_bytes()


def read_given_text(path: Path) -> str:
    """As `read_given`, of UTF-8 with or without a byte-order mark, lines ending in LF. UnicodeDecodeError."""
    return read_given(path).decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write that takes the place of `path` at the end: the old content or the new one, never a half.

    Makes missing folders. If anything is raised inside, or the disk refuses (OSError), the old file stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # not tempfile: its files are private to the user, and os.replace would keep that
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomic(path: Path, content: str | bytes) -> None:
    """Text (UTF-8) or bytes through `atomic_file`."""
    with atomic_file(path) as file:
        file.write(content.encode("utf-8") if isinstance(content, str) else content)


@contextmanager
def explain_write_errors(what: str, *, next_step: str) -> Iterator[None]:
    """Any OSError inside (disk full, no such place, not allowed) becomes a UserError that says what to do next."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {what} ({error.strerror or error}); {next_step}") from error
