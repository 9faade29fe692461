"""Errors that a user can cause or must act on, each with the exit code of the command line.

    UserError                usage or configuration: exit 2
    |-- DataError            recordings, filelists, texts: exit 3
    |-- GaveUp               restarts exhausted, or every trial of a search failed: exit 4
    `-- NothingToRecover     no usable checkpoint: exit 5

The commands print the message without a traceback; anything else that is raised is a defect of ours.
"""

import errno
import re
from collections.abc import Sequence

from common.redaction import without_secrets

# What is said where memory ended: by CUDA, the CPU's allocator, cuBLAS, C++, Python, and oneDNN, which says no more
NO_MEMORY = re.compile(
    "out of memory|(can't|cannot) allocate memory|alloc_failed|bad_alloc|memoryerror|can't start new thread|"
    "could not (create|execute) a (primitive|memory object)$|"
    # by PyTorch and the system on Windows, by CUDA's own names, and by Intel's and AMD's devices
    "not enough memory|paging file is too small|memoryallocation|out_of_(device_memory|host_memory|resources)|"
    "(unable|failed) to allocate|"
    # what libraries of a GPU say first where PyTorch's own cache holds the rest of it
    "allocation_failed|cublas_status_not_initialized.*cublascreate"
)
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})  # of an OSError: the disk is full, and may not stay so
SHOWN_PROBLEMS = 10  # a report stays on one screen; the count says how many more there are


class UserError(Exception):
    """What is wrong, where, the value, what is allowed, and what to do next. Shown without secrets of addresses."""

    exit_code = 2

    def __str__(self) -> str:
        return without_secrets(super().__str__())


class DataError(UserError):
    exit_code = 3


class GaveUp(UserError):
    exit_code = 4


class NothingToRecover(UserError):
    exit_code = 5


class TimeIsUp(Exception):
    """What was begun is saved as far as it came; TimeoutError would be an OSError, and a disk's."""


def first_line(error: Exception) -> str:
    """What it says, without the rest that PyTorch adds; its type where it says nothing."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def is_out_of_memory(error: Exception) -> bool:
    """Whether a step or a copy failed for lack of memory, on whatever device."""
    try:
        return isinstance(error, MemoryError) or says_no_memory(str(error))
    except MemoryError:  # not even for its text
        return True


def cause_of(error: Exception) -> str | None:
    """`out_of_memory` or `disk_full` where the error says so: what events keep of it."""
    if is_out_of_memory(error):
        return "out_of_memory"
    return "disk_full" if isinstance(error, OSError) and error.errno in NO_ROOM else None


def says_no_memory(text: str) -> bool:
    return NO_MEMORY.search(text.lower()) is not None


def format_problems(problems: Sequence[str], *, headline: str) -> str:
    """One message for many problems: the headline with the count, then the first ten.

    >>> print(format_problems(["a.txt:1: empty"], headline="1 bad line"))
    1 bad line
      a.txt:1: empty
    """
    lines = [headline, *(f"  {problem}" for problem in problems[:SHOWN_PROBLEMS])]
    if len(problems) > SHOWN_PROBLEMS:
        lines.append(f"  ... and {len(problems) - SHOWN_PROBLEMS} more")
    return "\n".join(lines)
