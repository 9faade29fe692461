"""The commands as a person types them: each test is a real process, started outside the repository."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from support.commands import TINY, assert_refused, command, environment, run, write_dataset
from support.paths import REPOSITORY

COMMANDS = (
    "train.py", "synthesize.py", "evaluate.py", "export.py", "serve.py", "-m player", "-m monitoring.report",
    "multiproc.py",
)  # fmt: skip
SWITCHES = (
    "-o", "--output-directory", "-l", "--log-directory", "-c", "--checkpoint-path", "--warm-start", "--hparams",
    "--hparams-file", "--preset", "--show-params", "--max-steps", "--max-minutes", "--fresh", "--resume-with-changes",
    "--skip-bad-data", "--no-dga", "--diagnose", "--ignore-mmi-layers", "--ignore-gst-layers", "--ignore-tsgst-layers",
    "--optimize-hyperparams", "--n-trials", "--optimization-timeout", "--n-jobs", "--storage", "--new-study",
    "--train-best", "--search-space", "--gpus-per-trial",
    "--n-gpus", "--rank", "--group-name",
)  # fmt: skip
FACTS = {"value", "default", "type", "unit", "range", "aliases", "origin", "help"}


@pytest.fixture
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Outside the working folder, where nothing but what was asked for may appear."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a tiny voice was trained for one step: `output/`, and the data beside it."""
    cwd = tmp_path_factory.mktemp("trained")
    write_dataset(cwd)
    done = run("train.py", "-o", "output", "-l", "logs", "--hparams", TINY, "--max-steps", "1", cwd=cwd,
               cache=cwd / "cache")  # fmt: skip
    assert done.returncode == 0, done.stderr
    return cwd


# -- help and parameters ----------------------------------------------------------------------------------------------


def children_s() -> float:
    """Processor time of ended child processes: a busy machine doesn't change it much."""
    times = os.times()
    return times.children_user + times.children_system


@pytest.mark.parametrize("script", COMMANDS)
def test_help_takes_under_a_second_of_processor_time(script: str, tmp_path: Path, cache: Path) -> None:
    env, cwd = environment(cache), tmp_path if script.endswith(".py") else REPOSITORY
    began_s = children_s()
    done = subprocess.run(command(script, "--help"), cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stderr == ""
    assert "usage:" in done.stdout
    assert children_s() - began_s < 1.0


@pytest.mark.parametrize("script", COMMANDS)
def test_help_does_not_import_heavy_packages(script: str, tmp_path: Path, cache: Path) -> None:
    importing = [sys.executable, "-X", "importtime", *command(script, "--help")[1:]]
    cwd = tmp_path if script.endswith(".py") else REPOSITORY
    done = subprocess.run(importing, cwd=cwd, env=environment(cache), capture_output=True, text=True)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "argparse" in imported, "the list of imports could not be read"
    assert imported & {"torch", "librosa", "matplotlib", "optuna", "scipy"} == set()


def test_help_names_every_switch(tmp_path: Path, cache: Path) -> None:
    words = run("train.py", "--help", cwd=tmp_path, cache=cache).stdout.replace(",", " ").split()
    assert [switch for switch in SWITCHES if switch not in words] == []


def test_underscores_work_for_dashes_in_every_switch(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "own_file.yaml").write_text("batch_size: 3\n")
    done = run(
        "train.py", "--output_directory", "o", "--log_directory=l", "--checkpoint_path", "c.pt", "--warm_start",
        "--hparams_file", "own_file.yaml", "--max_steps=3", "--max_minutes", "2", "--resume_with_changes",
        "--skip_bad_data", "--no_dga", "--ignore_mmi_layers", "--show_params=json", cwd=tmp_path, cache=cache,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert (shown["batch_size"]["value"], shown["no_dga"]["value"]) == (3, True)


def test_a_switch_may_not_be_abbreviated(tmp_path: Path, cache: Path) -> None:
    assert_refused(run("train.py", "--max-step", "3", cwd=tmp_path, cache=cache), 2, "--max-step")


def test_show_params_json_prints_one_object_and_nothing_else(tmp_path: Path, cache: Path) -> None:
    done = run("train.py", "--show-params", "json", cwd=tmp_path, cache=cache)
    assert (done.returncode, done.stderr) == (0, "")
    shown = json.loads(done.stdout)
    assert {name for name, facts in shown.items() if set(facts) != FACTS} == set()
    assert shown["learning_rate"]["value"] == 1e-3
    assert "max_grad_norm" in shown["grad_clip_thresh"]["aliases"]
    assert not any(tmp_path.iterdir()), "showing parameters left files behind"


def test_show_params_says_which_layer_set_each_value(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "mine.yaml").write_text("batch_size: 7\nseed: 5\n")
    done = run("train.py", "--preset", "demo", "--hparams-file", "mine.yaml", "--hparams", "seed=6", "--show-params",
               "json", cwd=tmp_path, cache=cache)  # fmt: skip
    shown = json.loads(done.stdout)
    origins = {name: (shown[name]["value"], shown[name]["origin"]) for name in ("seed", "batch_size", "prenet_dim")}
    assert origins == {
        "seed": (6, "--hparams"),
        "batch_size": (7, "file mine.yaml"),
        "prenet_dim": (128, "preset demo"),
    }
    assert shown["hop_length"]["origin"] == "default"


@pytest.mark.parametrize("arguments", [(), ("text",), ("md",)])
def test_show_params_prints_a_line_for_every_parameter(arguments: tuple[str, ...], tmp_path: Path, cache: Path) -> None:
    done = run("train.py", "--show-params", *arguments, cwd=tmp_path, cache=cache)
    names = json.loads(run("train.py", "--show-params", "json", cwd=tmp_path, cache=cache).stdout)
    first_words = {line.strip("| ").split()[0] for line in done.stdout.splitlines() if line.strip("| ")}
    assert set(names) - first_words == set()


# -- configuration errors: exit 2 -------------------------------------------------------------------------------------


def test_all_mistakes_in_the_hyperparameters_are_reported_at_once(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "mine.yaml").write_text("hop_lenght: 200\n")
    done = run("train.py", "--hparams-file", "mine.yaml", "--hparams",
               "learnin_rate=1e-3,batch_sise=2,guide_sigma=-1,mel_fmin=9000", cwd=tmp_path, cache=cache)  # fmt: skip
    assert_refused(
        done, 2, "5 problems", "learnin_rate=1e-3", "nearest: learning_rate", "nearest: batch_size", "guide_sigma=-1",
        "file mine.yaml", "nearest: hop_length", "mel_fmin must be below mel_fmax",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--warm-start",), ("--warm-start needs -c",)),
        (("--ignore-mmi-layers",), ("--ignore-mmi-layers needs --warm-start",)),
        (("--preset", "nope"), ("--preset nope", "demo", "nvidia")),
        (("--hparams-file", "absent.yaml"), ("absent.yaml",)),
        (("--hparams", "guided_attention_enabled=True,use_guided_attn=False"), ("use_guided_attn", "guided_attention")),
        (("--hparams", "prenet_dropout=0.1"), ("dropout_rate",)),
        (("--no-dga", "--hparams", "no_dga=False"), ("no_dga",)),
        (("--max-steps", "0"), ("--max-steps", "0")),
        (("--max-steps", "ten"), ("--max-steps", "ten")),
        (("--max-minutes", "-1"), ("--max-minutes", "-1")),
        (("--max-minutes", "nan"), ("--max-minutes", "nan")),
        (("--show-params", "xml"), ("--show-params", "xml", "json")),
        (("--unheard-of",), ("--unheard-of",)),
    ],
)
def test_a_wrong_command_is_refused(
    arguments: tuple[str, ...], expected: tuple[str, ...], tmp_path: Path, cache: Path
) -> None:
    assert_refused(run("train.py", *arguments, cwd=tmp_path, cache=cache), 2, *expected)
    assert not (tmp_path / "output").exists()


def test_a_missing_checkpoint_is_refused_before_any_data_is_made(tmp_path: Path, cache: Path) -> None:
    done = run("train.py", "-c", "absent.pt", "-o", "output", "-l", "logs", cwd=tmp_path, cache=cache)
    assert_refused(done, 2, "absent.pt: no such checkpoint")
    assert not [path for path in cache.glob("*") if path.suffix != ".so"]
    assert not (tmp_path / "output").exists()


# -- data errors: exit 3 ----------------------------------------------------------------------------------------------


def test_a_wrong_filelist_never_falls_back_to_the_demo_corpus(tmp_path: Path, cache: Path) -> None:
    done = run("train.py", "--hparams", "training_files=absent.csv", "-o", "output", "-l", "logs", cwd=tmp_path,
               cache=cache)  # fmt: skip
    assert_refused(done, 3, "training_files=absent.csv", "set by: --hparams")
    assert "demo" not in done.stderr
    assert not list(cache.glob("demo*"))


def test_a_default_filelist_without_its_other_half_is_an_error(tmp_path: Path, cache: Path) -> None:
    write_dataset(tmp_path)
    (tmp_path / "data" / "dataset" / "val.csv").unlink()
    done = run("train.py", "-o", "output", "-l", "logs", cwd=tmp_path, cache=cache)
    assert_refused(done, 3, "validation_files=data/dataset/val.csv is no file")
    assert "demo" not in done.stderr


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("scripts", [("train.py",), ("multiproc.py", "train.py")])
def test_a_signal_before_training_ends_the_command_with_one_line(
    scripts: tuple[str, ...], number: int, exit_code: int, tmp_path: Path, cache: Path
) -> None:
    process = subprocess.Popen(
        command(*scripts, "-o", "output", "-l", "logs"), cwd=tmp_path, env=environment(cache), stderr=subprocess.PIPE,
        text=True, start_new_session=True,
    )  # fmt: skip
    while "libtorch_cpu" not in Path(f"/proc/{process.pid}/maps").read_text():  # the longest part of the beginning
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    said = process.communicate(timeout=60)[1]
    assert (process.returncode, said.count("\n")) == (exit_code, 1), said
    assert "nothing to save. Run the same command to resume" in said
    assert list(tmp_path.iterdir()) == []


# -- speaking and judging ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("script_arguments", [("synthesize.py", "Hello."), ("evaluate.py",)])
def test_a_folder_without_a_checkpoint_is_exit_5(
    script_arguments: tuple[str, ...], tmp_path: Path, cache: Path
) -> None:
    (tmp_path / "empty").mkdir()
    script, *arguments = script_arguments
    done = run(script, "-c", "empty", *arguments, cwd=tmp_path, cache=cache)
    assert_refused(done, 5, "empty: no usable checkpoint")


def test_speaking_from_a_missing_checkpoint_is_refused(tmp_path: Path, cache: Path) -> None:
    done = run("synthesize.py", "-c", "absent.pt", "Hello.", cwd=tmp_path, cache=cache)
    assert_refused(done, 2, "absent.pt: no such checkpoint")


def test_speaking_into_a_file_of_another_kind_is_refused(trained: Path, tmp_path: Path, cache: Path) -> None:
    done = run("synthesize.py", "-c", trained / "output", "Hello.", "-o", "hello.mp3", cwd=tmp_path, cache=cache)
    assert_refused(done, 2, "hello.mp3", ".wav")


def test_every_text_that_cannot_be_spoken_is_reported(trained: Path, tmp_path: Path, cache: Path) -> None:
    done = run("synthesize.py", "-c", trained / "output", "100 % @home", "Fine.", "", cwd=tmp_path, cache=cache)
    assert_refused(done, 3, "2 of 3 texts", "'%'", "'@'", "nothing to say")
    assert not list(tmp_path.glob("*.wav"))


def test_a_training_leaves_its_report(trained: Path, tmp_path: Path, cache: Path) -> None:
    page = (trained / "output" / "report.html").read_text(encoding="utf-8")
    assert "ended: all steps done" in page and "<svg" in page
    done = run("-m monitoring.report", tmp_path, cwd=tmp_path, cache=cache)
    assert done.returncode == 2 and done.stderr.startswith(f"error: {tmp_path} is no run directory")


# -- the search -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("switches", "message"),
    [
        (("--n-trials", "5"), "--n-trials needs --optimize-hyperparams"),
        (("--new_study", "--train-best"), "--new-study and --train-best needs --optimize-hyperparams"),
        (("--optimize-hyperparams", "--n-trials", "0"), "0 is not a whole number of at least 1"),
        (("--optimize-hyperparams", "--optimization-timeout", "nan"), "not a positive number of seconds"),
    ],
)
def test_switches_of_the_search_are_checked(tmp_path: Path, cache: Path, switches: Sequence[str], message: str) -> None:
    assert_refused(run("train.py", *switches, cwd=tmp_path, cache=cache), 2, message)
