"""The proof that parameters are real proves something: it catches what ignores one, and says so where nothing would."""

import subprocess
import sys
from pathlib import Path

import pytest

from mutations import ROOT, Verdict, ignoring, remembered

HOLDERS = frozenset({"hp", "audio"})
SOURCE = """
def f(hp, audio, sample):
    hp.rate = 3
    return hp.rate, audio.rate, self.hp.rate, sample.rate, hp.rate_min, f"{hp.rate:.1f}"
"""


def test_every_read_becomes_a_constant_and_nothing_else_does() -> None:
    mutated, lines = ignoring(SOURCE, "rate", (2, "x"), holders=HOLDERS)
    assert lines == [4, 4, 4, 4]
    expected = "return ((2, 'x'), (2, 'x'), (2, 'x'), sample.rate, hp.rate_min, f\"{(2, 'x'):.1f}\")"
    assert expected.replace('"', "'") in mutated.replace('"', "'")  # Python 3.12 quotes the f-string otherwise
    assert "hp.rate = 3" in mutated


def test_source_that_reads_nothing_of_it_stays_as_it_is() -> None:
    assert ignoring(SOURCE, "batch_size", 1, holders=HOLDERS) == (SOURCE, [])


def test_a_row_names_the_test_that_noticed_or_says_that_none_did() -> None:
    noticed = Verdict("rate", ("model.py:3", "audio/mel.py:5"), "0.5", "tests/t.py::test_it", "a | b")
    assert noticed.row() == "| `rate` | model.py:3, audio/mel.py:5 | `0.5` | `tests/t.py::test_it` | a \\| b |"
    missed = Verdict("rate", ("model.py:3",), "0.5", "", "")
    assert missed.row() == "| `rate` | model.py:3 | `0.5` | **SURVIVED** |  |"


def test_what_is_remembered_is_of_the_same_files(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    content = '"places": ["model.py:3"], "value": "0.5", "test": "t", "said": "s"}\n'
    path.write_text(f'{{"fingerprint": "a", "name": "x", {content}{{"fingerprint": "b", "name": "y", {content}')
    assert list(remembered(path, "b")) == ["y"] and remembered(path, "b")["y"].places == ("model.py:3",)
    assert remembered(tmp_path / "none", "b") == {}


def mutations(*arguments: str, results: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tests/mutations.py"), *arguments, "--results", str(results)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.slow
def test_the_command_tells_what_a_test_notices_from_what_it_does_not(tmp_path: Path) -> None:
    tests = ("--tests", "tests/training/test_schedules.py")  # which knows of warm-up, and nothing of attention
    done = mutations("--only", "warmup_steps,guide_sigma", *tests, results=tmp_path / "results.jsonl")
    assert done.returncode == 1, done.stderr
    rows = {line.split("`")[1]: line for line in done.stdout.splitlines() if line.startswith("| `")}
    assert (
        "schedules.py:" in rows["warmup_steps"] and "`tests/training/test_schedules.py::test_" in rows["warmup_steps"]
    )
    assert "loss_function.py:" in rows["guide_sigma"] and "**SURVIVED**" in rows["guide_sigma"]
    assert done.stdout.endswith("survivors: guide_sigma\n")


@pytest.mark.campaign
def test_no_parameter_survives(tmp_path: Path) -> None:
    done = mutations(results=tmp_path / "results.jsonl")
    assert done.returncode == 0, done.stdout + done.stderr
