"""What all commands share: how switches are spelled and given, what their numbers must be, and how a command ends."""

import argparse
import errno
import logging
import os
import re
import select
import signal
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from math import inf
from pathlib import Path
from typing import Any, NoReturn

from common.errors import UserError
from common.redaction import argument_without_secrets, without_secrets

NEVER_A_PATH = (errno.ELOOP, errno.ENAMETOOLONG)  # links that lead to themselves
PATHS_AS_TEXT = ("output", "vocoder")  # which may be something else, too: "-", or the name of a vocoder
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
SIGPIPE_EXIT = 141  # 128 + SIGPIPE, which Windows lacks


class Parser(argparse.ArgumentParser):
    """Switches are written out, with dashes or underscores, and given once, unless they gather what they are given."""

    def __init__(self, **more: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **more)
        self.given: set[str] = set()
        for name in (None, "store"):
            self.register("action", name, _StoreOnce)

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        self.given.clear()
        return super().parse_known_args(with_dashes(sys.argv[1:] if args is None else args), namespace)

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        found, rest = self.parse_known_args(args, namespace)
        if rest:
            self.refuse(rest)
        return found

    def print_help(self, file: Any = None) -> None:
        """argparse would say nothing where it can't be written."""
        print(self.format_help(), end="", file=file or sys.stdout, flush=True)

    def error(self, message: str) -> NoReturn:
        """As argparse does, but for the secrets of addresses that were given in the wrong place."""
        super().error(without_secrets(message))

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        may_be_empty = action.type is not Path and action.dest != "vocoder"  # Path("") is the folder here
        if not arg_string and not may_be_empty:  # of an empty variable of the shell
            raise argparse.ArgumentError(action, "is empty; name a path (. is the folder here)")
        is_path = action.type is Path or action.dest in PATHS_AS_TEXT
        if is_path and (never := _never_a_path(arg_string)):
            raise argparse.ArgumentError(action, f"{shortened(arg_string)}: {never}; name another path")
        return super()._get_value(action, arg_string)

    def refuse(self, rest: Sequence[str]) -> NoReturn:
        """Ends the command over what it doesn't know, with the nearest switches that it has."""
        known = [name for name in self._option_string_actions if name.startswith("--")]
        names = [word.partition("=")[0] for word in rest if word.startswith("-")]
        near = [near for name in names for near in get_close_matches(name, known, n=1)]
        advice = f"; nearest: {', '.join(near)}" if near else ""
        settings = [word for word in rest if re.fullmatch(r"[a-z]\w*=.*", word)]
        if settings and "--hparams" in known:
            advice += f'; hyperparameters are given as --hparams "{",".join(settings)}"'
        self.error(f"unrecognized arguments: {' '.join(map(argument_without_secrets, rest))}{advice}")


def _never_a_path(text: str) -> str:
    """Why nothing can lie there, whoever asks; "" where something may."""
    try:
        os.stat(text)
    except OSError as error:
        return os.strerror(error.errno) if error.errno in NEVER_A_PATH else ""
    except ValueError:  # a NUL, or half a character
        return "holds a character that no path has"
    return ""


def shortened(text: str, *, length: int = 60) -> str:
    """The beginning, in printable characters."""
    beginning = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text[:length])
    return beginning + ("..." if len(text) > length else "")


class Verb(Parser):
    """The parser of `command verb`: what it doesn't know is its own to refuse, beside its own usage."""

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        found, rest = super().parse_known_args(args, namespace)
        if rest:
            self.refuse(rest)
        return found, rest


class _StoreOnce(argparse.Action):
    """Of two values the first would be lost without a word."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        assert isinstance(parser, Parser)
        if option_string is not None and self.dest in parser.given:
            parser.error(f"{option_string} is given twice; keep one of them")
        parser.given.add(self.dest)
        setattr(namespace, self.dest, values)


def with_dashes(argv: Sequence[str]) -> list[str]:
    """Underscores work for dashes in the names of switches; values stay.

    >>> with_dashes(["--max_steps=3", "--hparams", "batch_size=2"])
    ['--max-steps=3', '--hparams', 'batch_size=2']
    """
    return [_dashed(word) if word.startswith("--") else word for word in argv]


def _dashed(switch: str) -> str:
    name, equals, value = switch.partition("=")
    return name.replace("_", "-") + equals + value


def int_at_least(least: int) -> Callable[[str], int]:
    """A type for argparse: whole numbers from `least` on."""

    def number(text: str) -> int:
        if not re.fullmatch(r"[+-]?[0-9]+", text) or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least {least}")
        return int(text)

    return number


def device(text: str) -> str:
    """A type for argparse: auto, cpu, or a GPU as PyTorch names it. Whether it is there takes PyTorch to tell."""
    if not re.fullmatch("auto|cpu|cuda(:[0-9]+)?", text):
        raise argparse.ArgumentTypeError(f"{text} is not auto, cpu, cuda or cuda:N")
    return text


def positive(unit: str) -> Callable[[str], float]:
    """A type for argparse: numbers over 0, but for infinity; "minutes" is what the message calls them."""

    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = inf
        if not 0 < value < inf:  # NaN compares false as well
            raise argparse.ArgumentTypeError(f"{text} is not a positive number of {unit}")
        return value

    return number


def within(least: float, most: float, unit: str) -> Callable[[str], float]:
    """A type for argparse: numbers from `least` to `most`, of seconds, say."""

    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = inf
        if not least <= value <= most:  # NaN compares false as well
            raise argparse.ArgumentTypeError(f"{text} is not a number from {least:g} to {most:g} {unit}")
        return value

    return number


# -- the end of a command ---------------------------------------------------------------------------------------------

_has_foreign_threads = False


def run_command(run: Callable[[], int]) -> int:
    """The exit code of `run`. A UserError is one message without a traceback, and so is Ctrl-C.

    Whoever reads the output may stop before its end, as head does: that ends the command, too.
    """
    try:
        code = run()
        sys.stdout.flush()
        return code
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:
        if not _has_lost_its_reader():
            raise
        _drop_output()
        return SIGPIPE_EXIT
    except OSError as error:
        if not is_output_refused(error):
            raise
        _drop_output()
        print(f"error: cannot write to standard output ({error.strerror}); free space there", file=sys.stderr)
        return UserError.exit_code


def is_output_refused(error: OSError) -> bool:
    """Whether it was standard output that could not be written: a disk that is full refuses an empty line, too."""
    if error.errno not in FULL or error.filename is not None:
        return False
    try:
        os.write(1, b"\n")
    except OSError:
        return True
    return False


def _drop_output() -> None:
    """Or Python complains of what is left to write."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _has_lost_its_reader() -> bool:
    """Whether standard output is a pipe that nobody reads any more."""
    if not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(1, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def expect_foreign_threads() -> None:
    """From now on threads of foreign code (gloo's, an observer's left in the middle of its work) may outlive `main`."""
    global _has_foreign_threads
    _has_foreign_threads = True


def leave(code: int) -> NoReturn:
    """Ends the process; without the interpreter's orderly end where that would tear foreign threads out of their code,
    which aborts the process.
    """
    if _has_foreign_threads:
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
