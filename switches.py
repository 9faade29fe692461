"""How command lines are spelled."""

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
