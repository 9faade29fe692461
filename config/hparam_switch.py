"""Switches of commands that stand for a hyperparameter: they take what it takes, and refuse what it refuses."""

import argparse
from collections.abc import Callable
from typing import Any


def like_hparam(name: str) -> Callable[[str], Any]:
    """A type for argparse: the values of this hyperparameter.

    >>> like_hparam("gate_threshold")("0.5")
    0.5
    """

    def value(text: str) -> Any:
        from hparams import HParams  # half a second to import, which --help does without
        from tools import Assignment, Layer, SettingsError, merge_layers

        try:
            return merge_layers(HParams, [Layer("", (Assignment(name, text),))]).values[name]
        except SettingsError as error:
            raise argparse.ArgumentTypeError(f"{text} must be {error.problems[0].allowed}, as {name} is") from error

    return value
