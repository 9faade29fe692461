"""Console commands of the installed package, each a script of a checkout: `tacotron2-train` is `python train.py`."""

import runpy
import sys
from typing import NoReturn

from tacotron2_trainer import root


def _run(script: str) -> NoReturn:
    """As `python SCRIPT` does, its folder first on the path and its name in messages."""
    runpy.run_path(str(root() / script), run_name="__main__")
    sys.exit(0)


def train() -> NoReturn:
    _run("train.py")


def multiproc() -> NoReturn:
    _run("multiproc.py")


def synthesize() -> NoReturn:
    _run("synthesize.py")


def evaluate() -> NoReturn:
    _run("evaluate.py")


def export() -> NoReturn:
    _run("export.py")


def serve() -> NoReturn:
    _run("serve.py")


def recover() -> NoReturn:
    _run("emergency_recovery.py")


def player() -> NoReturn:
    runpy.run_module("player", run_name="__main__", alter_sys=True)
    sys.exit(0)
