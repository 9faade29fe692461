"""What all commands share: how switches are spelled and given, what their numbers must be, and how a command ends."""

import argparse
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from math import inf
from typing import Any, NoReturn

from common.errors import UserError


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


# -- the end of a command ---------------------------------------------------------------------------------------------

_has_foreign_threads = False


def run_command(run: Callable[[], int]) -> int:
    """The exit code of `run`. A UserError is one message without a traceback, and so is Ctrl-C."""
    try:
        return run()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 128 + signal.SIGINT


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
