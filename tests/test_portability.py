"""Commands and modules work without what only POSIX has: Windows lacks it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from common import signals
from smart_tuner.trainer_wrapper import TrainerWrapper
from support.compiled import compile_once, share_compiled_loops
from support.corpora import tiny_settings, write_corpus
from support.paths import REPOSITORY
from support.sources import source_files

COMMANDS = [
    *sorted(p.stem for p in REPOSITORY.glob("*.py") if "__main__" in p.read_text(encoding="utf-8")),
    *("text.__main__", "player.__main__", "exporting.__main__", "monitoring.report.__main__"),
]
MODULES = [
    ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
    for path in source_files()
    if path.relative_to(REPOSITORY).parts[0] not in ("benchmarks", "docs", "tacotron2_trainer")
]


PROGRAM = """
import sys
sys.path[:0] = [{repository!r}, {tests!r}]
import support.without_posix
import importlib, runpy
from pathlib import Path

def run(end, *arguments):
    sys.argv = ["command", *arguments]
    try: code = end(list(arguments))
    except SystemExit as ended: code = ended.code
    assert not code, (arguments, code)

for name in {modules!r}:
    importlib.import_module(name)
print("imported")
for name in {commands!r}:
    run(importlib.import_module(name).main, "--help")
print("helped")

import train, synthesize, prepare_data, text.__main__
from run_directory.paths import exclusive_lock, is_in_use

run(train.main, "-o", "run", "-l", "logs", "--max-steps", "2", "--hparams", {settings!r})
quick = ("--max-seconds", "1", "--no-pictures", "--no-enhancement")
run(synthesize.main, "-c", "run", "a low tone", "-o", "a.wav", *quick)
run(prepare_data.main, "check", "corpus/train.txt")
run(text.__main__.main, "Hello")
with exclusive_lock(Path("run"), what_next="wait"):
    assert is_in_use(Path("run"))
assert not is_in_use(Path("run"))
print("done")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("without_posix")


@pytest.fixture(scope="module")
def without_posix(folder: Path) -> subprocess.CompletedProcess[str]:
    """One process that imports everything and does a newcomer's first steps."""
    write_corpus(folder / "corpus")
    program = PROGRAM.format(
        repository=str(REPOSITORY),
        tests=str(REPOSITORY / "tests"),
        modules=MODULES,
        commands=COMMANDS,
        settings=tiny_settings(Path("corpus")),
    )
    compile_once()
    share_compiled_loops(folder / "cache")
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env={**os.environ, "TACOTRON2_CACHE": str(folder / "cache")},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
    )


@pytest.mark.slow
def test_every_module_and_command_begins_without_what_only_posix_has(
    without_posix: subprocess.CompletedProcess[str],
) -> None:
    assert len(COMMANDS) > 12 and len(MODULES) > 200
    assert "helped" in without_posix.stdout.splitlines(), without_posix.stderr
    assert without_posix.stdout.lower().count("usage: ") == len(COMMANDS)


@pytest.mark.spec
def test_a_voice_is_trained_and_saved_and_speaks_without_it(
    without_posix: subprocess.CompletedProcess[str], folder: Path
) -> None:
    assert without_posix.stdout.splitlines()[-1] == "done" and "Traceback" not in without_posix.stderr
    assert (folder / "run/checkpoints/step_00000002.pt").is_file()
    assert (folder / "a.wav").is_file()


def test_a_trial_is_ended_where_processes_have_no_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(signals.os, "killpg")
    monkeypatch.delattr(signal, "SIGKILL")
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    trial = TrainerWrapper(command, tmp_path / "trial", grace_s=20.0, poll_s=0.01)
    assert trial.run(lambda _: "pruned").ending == "pruned"
