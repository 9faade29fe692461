"""Switches of commands that stand for a hyperparameter: they take what it takes, and refuse what it refuses."""

import argparse
from collections.abc import Callable
from typing import Any

from common.errors import UserError


def like_hparam(name: str) -> Callable[[str], Any]:
    """A type for argparse: the values of this hyperparameter.

    >>> like_hparam("gate_threshold")("0.5")
    0.5
    """

    def value(text: str) -> Any:
        from hparams import HParams, field_info  # half a second to import, which --help does without
        from tools import Assignment, Layer, merge_layers

        try:
            return merge_layers(HParams, [Layer("", (Assignment(name, text),))]).values[name]
        except UserError as error:
            raise argparse.ArgumentTypeError(f"{text} must be {field_info(name).allowed}, as {name} is") from error

    return value
