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

WIDE_MARKS = {b"\xff\xfe\0\0": "utf-32", b"\0\0\xfe\xff": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
LOOKED_AT = 1 << 16  # bytes
ALPHABETS_END = "\u0590"  # Latin, Greek, Cyrillic: of UTF-8 with stray NULs UTF-16 makes Chinese
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


class NotText(ValueError):
    """Why a file can't be read as text, and what to do: "is UTF-16, ..." to be put behind its name."""


def read_given_text(path: Path) -> str:
    """As `read_given`, of UTF-8 with or without a byte-order mark, lines ending in LF. NotText for anything else."""
    return as_text(read_given(path))


def as_text(content: bytes) -> str:
    """What `read_given_text` makes of a file's bytes."""
    if (wide := wide_encoding(content)) is not None:
        name = wide.upper().replace("-LE", "LE").replace("-BE", "BE")
        raise NotText(f"is {name}, and not UTF-8; save it as UTF-8, as with: iconv -f {name} -t UTF-8")
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise NotText(f"is not UTF-8 text (byte {error.start + 1}); save it as UTF-8") from error


def wide_encoding(content: bytes) -> str | None:
    """The encoding of text with two or four bytes a character, by its mark or, of UTF-16, by what it holds; else None.

    Without a mark it passes for UTF-8 that is full of NULs.
    """
    for mark, name in WIDE_MARKS.items():
        if content.startswith(mark):
            return name
    if b"\0" not in content:
        return None
    for name in ("utf-16-le", "utf-16-be"):
        text = content[:LOOKED_AT].decode(name, errors="ignore")
        if sum("\0" < char < ALPHABETS_END for char in text) > 0.8 * len(text) or ("|" in text and "\n" in text):
            return name
    return None


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
