"""How switches are given, what their numbers may be, and how a command ends."""

import argparse
import importlib
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from common.cli import Parser, int_at_least, positive, run_command, with_dashes
from common.errors import DataError
from config.hparam_switch import like_hparam
from support.paths import REPOSITORY

COMMANDS = (
    "train", "synthesize", "evaluate", "emergency_recovery", "multiproc", "test_hparams_compatibility",
    "monitoring.report.__main__",
)  # fmt: skip
VALUES = {"--precision": "int8", "--language": "en", "--show-params": "md", "--rdzv_endpoint": "host:1"}


def switches(command: str) -> list[tuple[Parser, argparse.Action]]:
    module = importlib.import_module(command)
    parser = module.parser()
    assert isinstance(parser, Parser)
    return [(parser, action) for action in parser._actions if action.option_strings]


def test_underscores_become_dashes_in_names_only() -> None:
    assert with_dashes(["--max_steps=3", "--hparams", "batch_size=2"]) == ["--max-steps=3", "--hparams", "batch_size=2"]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_switch_with_one_value_given_twice_is_an_error(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    for parser, action in switches(command):
        is_gathering = type(action).__name__ in ("_StoreTrueAction", "_HelpAction", "_AppendAction")
        if is_gathering:
            continue
        value = VALUES.get(action.option_strings[-1], VALUES.get(action.option_strings[0], "1"))
        with pytest.raises(SystemExit) as ended:
            parser.parse_known_args([action.option_strings[0], value, action.option_strings[-1], value])
        said = capsys.readouterr().err
        assert ended.value.code == 2 and "is given twice; keep one of them" in said, said


@pytest.mark.parametrize("command", COMMANDS)
def test_every_number_of_a_command_line_has_a_range(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """float takes "nan", int takes what no seed, count or rank can be; --style-weight is judged with its token."""
    unlimited = {action.option_strings[-1] for _, action in switches(command) if action.type in (int, float)}
    assert unlimited <= {"--style-weight"}
    for parser, action in switches(command):
        if callable(action.type) and "cli" in action.type.__module__ + getattr(action.type, "__qualname__", ""):
            with pytest.raises(SystemExit):
                parser.parse_known_args([action.option_strings[0], "nan"])
            assert "nan is not a" in capsys.readouterr().err


@pytest.mark.parametrize(("kind", "good", "bad"), [
    (int_at_least(1), {"1": 1, "12": 12}, ["0", "-1", "1.5", "nan", "", "1_000", "x"]),
    (positive("minutes"), {"0.5": 0.5, "1e3": 1000.0}, ["0", "-1", "nan", "inf", "x", ""]),
    (like_hparam("gate_threshold"), {"0": 0.0, "0.5": 0.5, "1": 1.0}, ["-0.1", "1.5", "nan", "inf", "x", ""]),
    (like_hparam("seed"), {"0": 0, "4294967295": 2**32 - 1}, ["-1", "4294967296", "1.5", "True"]),
])  # fmt: skip
def test_numbers_out_of_range_are_refused(
    kind: Callable[[str], object], good: dict[str, object], bad: list[str]
) -> None:
    assert {text: kind(text) for text in good} == good
    for text in bad:
        with pytest.raises(argparse.ArgumentTypeError, match=r"is not a|must be"):
            kind(text)


def test_a_users_mistake_is_a_message_and_its_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> int:
        raise DataError("a.txt:3: no text")

    assert run_command(fail) == 3 and capsys.readouterr().err == "error: a.txt:3: no text\n"
    assert run_command(lambda: 0) == 0


def test_ctrl_c_is_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> int:
        raise KeyboardInterrupt

    assert run_command(interrupted) == 128 + signal.SIGINT and capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize("has_foreign_threads", [False, True])
def test_with_foreign_threads_a_process_ends_without_the_interpreters_teardown(has_foreign_threads: bool) -> None:
    code = "import atexit; from common.cli import *; atexit.register(print, 'torn down'); print('done', end=' ');"
    code += "expect_foreign_threads();" * has_foreign_threads + "leave(7)"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 7 and done.stdout.strip() == ("done" if has_foreign_threads else "done torn down")
