"""How command lines are spelled, and what their numbers must be."""

import argparse
from collections.abc import Sequence


def with_dashes(argv: Sequence[str]) -> list[str]:
    """Underscores work for dashes in the names of switches; values stay.

    >>> with_dashes(["--max_steps=3", "--hparams", "batch_size=2"])
    ['--max-steps=3', '--hparams', 'batch_size=2']
    """
    return [_dashed(word) if word.startswith("--") else word for word in argv]


def _dashed(switch: str) -> str:
    name, equals, value = switch.partition("=")
    return name.replace("_", "-") + equals + value


def positive_int(text: str) -> int:
    value = int(text)  # argparse reports the ValueError
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return value


def positive_minutes(text: str) -> float:
    return _positive(text, "minutes")


def positive_seconds(text: str) -> float:
    return _positive(text, "seconds")


def _positive(text: str, unit: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):  # NaN compares false as well
        raise argparse.ArgumentTypeError(f"{text} is not a positive number of {unit}")
    return value
