"""How switches are given, what their numbers may be, and how a command ends."""

import argparse
import importlib
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import export
import prepare_data
import train
from common.cli import Parser, device, int_at_least, positive, run_command, with_dashes, within
from common.errors import DataError, UserError
from config.hparam_switch import like_hparam
from hparams import resolve_hparams
from prepare_data import share
from serve import port
from support.paths import REPOSITORY

COMMANDS = (
    "train", "synthesize", "evaluate", "emergency_recovery", "multiproc", "test_hparams_compatibility",
    "monitoring.report.__main__", "export", "serve", "prepare_data", "player.__main__", "exporting.__main__",
    "text.__main__",
)  # fmt: skip
VALUES = {"--precision": "int8", "--language": "en", "--show-params": "md", "--rdzv_endpoint": "host:1",
          "--prenet-dropout": "0.1", "--device": "cpu", "--search-space": "wide", "--validation": "0.5",
          "--text-input": "phonemes"}  # fmt: skip


def switches(command: str) -> list[tuple[Parser, argparse.Action]]:
    module = importlib.import_module(command)
    parser = module.parser()
    assert isinstance(parser, Parser)
    parsers = [parser, *(verb for verbs in parser._actions if isinstance(verbs, argparse._SubParsersAction)
                         for verb in verbs.choices.values())]  # fmt: skip
    return [(parser, action) for parser in parsers for action in parser._actions if action.option_strings]


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
    (within(0, 60, "seconds"), {"0": 0.0, "60": 60.0}, ["-1", "61", "nan", "inf", "x", ""]),
    (port, {"0": 0, "65535": 65535}, ["-1", "65536", "1.5", "x", ""]),
    (share, {"0.5": 0.5}, ["0", "1", "-1", "nan", "x", ""]),
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


@pytest.mark.parametrize(
    ("command", "arguments", "said"),
    [
        ("train", ["--max-step", "3"], "unrecognized arguments: --max-step 3; nearest: --max-steps"),
        ("train", ["batch_size=4"], 'batch_size=4; hyperparameters are given as --hparams "batch_size=4"'),
        ("train", ["--storag", "mysql://a:secret@host/db"], "--storag mysql://***@host/db; nearest: --storage"),
        ("prepare_data", ["check", "a.csv", "-o", "out"], "py check: error: unrecognized arguments: -o out"),
        ("prepare_data", ["import", "a", "-o", "b", "--overwrit"], "nearest: --overwrite"),
    ],
)
def test_what_a_command_does_not_know_is_named_beside_the_nearest(
    command: str, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", [f"{command}.py"])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(command).parser().parse_args(arguments)
    shown = capsys.readouterr().err
    assert ended.value.code == 2 and said in shown and "secret" not in shown


@pytest.mark.parametrize("text", ["auto", "cpu", "cuda", "cuda:0", "cuda:12"])
def test_devices_are_called_as_pytorch_calls_them(text: str) -> None:
    assert device(text) == text


@pytest.mark.parametrize("text", ["", "gpu", "CUDA", "cuda:", "cuda:-1", "0", "mps", "cuda:1.5"])
def test_another_name_is_no_device(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=f"{text} is not auto, cpu, cuda or cuda:N"):
        device(text)


@pytest.mark.parametrize("arguments", [["-o", ""], ["--output-directory="], ["-c", ""]])
def test_an_empty_path_is_not_the_folder_here(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        importlib.import_module("train").parser().parse_args(arguments)
    assert "is empty; name a path (. is the folder here)" in capsys.readouterr().err


def test_a_reader_that_has_seen_enough_ends_a_command_quietly() -> None:
    with subprocess.Popen(
        [sys.executable, "train.py", "--show-params"], cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device here is always full")
@pytest.mark.parametrize(
    "words",
    [
        "train.py --show-params", "train.py --help", "prepare_data.py check --help", "-m text languages",
        "-m text Hello.", "prepare_data.py stats data/train.txt --dataset-path data",
        "prepare_data.py stats data/train.txt --dataset-path data --json -",
    ],
)  # fmt: skip
def test_a_full_disk_behind_standard_output_is_one_message_and_no_success(words: str, corpus_folder: Path) -> None:
    command = [word.replace("data/", f"{corpus_folder}/") if word != "data" else str(corpus_folder)
               for word in words.split()]  # fmt: skip
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, *command], cwd=REPOSITORY, stdout=full, stderr=subprocess.PIPE, text=True
        )
    last = done.stderr.splitlines()[-1]
    assert (done.returncode, last) == (
        2, "error: cannot write to standard output (No space left on device); free space there"
    )  # fmt: skip
    assert "Traceback" not in done.stderr


def test_a_file_on_a_full_disk_is_named(corpus_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lists = [str(corpus_folder / "train.txt"), "--dataset-path", str(corpus_folder)]
    assert prepare_data.main(["stats", *lists, "--json", "/dev/full"]) == 2
    assert "/dev/full can't be written or read (No space left on device)" in capsys.readouterr().err


def test_a_pipe_that_breaks_elsewhere_is_a_defect_that_is_shown() -> None:
    def fail() -> int:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        run_command(fail)


@pytest.mark.parametrize("command", ["train", "export", "synthesize"])
@pytest.mark.parametrize(
    ("path", "why"), [("a" * 300, "File name too long"), ("a\0b", "holds a character"), ("loop", "symbolic links")]
)
def test_a_path_that_can_never_be_is_refused_at_once(
    command: str,
    path: str,
    why: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    with pytest.raises(SystemExit, match="2"):
        importlib.import_module(command).parser().parse_args(["-c", "run", "-o", path])
    assert why in capsys.readouterr().err


def test_an_export_without_a_place_loads_no_voice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert export.main(["-c", "no voice", "-o", str(tmp_path / "file" / "a.zip")]) == 2
    assert "is a file where a folder should be" in capsys.readouterr().err


def test_hparams_given_several_times_are_taken_together_and_twice_the_same_is_refused() -> None:
    given = train.parser().parse_args(["--hparams", "batch_size=4", "--hparams", " learning_rate=1e-4 "])
    settings = resolve_hparams(**vars(train.layers_of(given)))
    assert (settings.hparams.batch_size, settings.hparams.learning_rate) == (4, 1e-4)
    twice = train.parser().parse_args(["--hparams", "batch_size=4", "--hparams", "batch_size=5"])
    with pytest.raises(UserError, match="batch_size"):
        resolve_hparams(**vars(train.layers_of(twice)))
