"""Errors that a user can cause or must act on, each with the exit code of the command line.

    UserError                usage or configuration: exit 2
    |-- DataError            recordings, filelists, texts: exit 3
    |-- GaveUp               restarts exhausted, or every trial of a search failed: exit 4
    `-- NothingToRecover     no usable checkpoint: exit 5

The commands print the message without a traceback; anything else that is raised is a defect of ours.
"""

from collections.abc import Sequence

SHOWN_PROBLEMS = 10  # a report stays on one screen; the count says how many more there are


class UserError(Exception):
    """What is wrong, where, the value, what is allowed, and what to do next."""

    exit_code = 2


class DataError(UserError):
    exit_code = 3


class GaveUp(UserError):
    exit_code = 4


class NothingToRecover(UserError):
    exit_code = 5


def report(problems: Sequence[str], *, headline: str) -> str:
    """One message for many problems: the headline with the count, then the first ten.

    >>> print(report(["a.txt:1: empty"], headline="1 bad line"))
    1 bad line
      a.txt:1: empty
    """
    lines = [headline, *(f"  {problem}" for problem in problems[:SHOWN_PROBLEMS])]
    if len(problems) > SHOWN_PROBLEMS:
        lines.append(f"  ... and {len(problems) - SHOWN_PROBLEMS} more")
    return "\n".join(lines)
