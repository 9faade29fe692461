"""The measuring run for a GPU: whatever fails, is late or interrupts it, what is known by then is told."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from support.paths import REPOSITORY

DATA = Path(os.environ.get("TACOTRON2_TEST_DATA", REPOSITORY.parent / "shared" / "data")) / "kathleen_vorbis"
STAGES = ("machine", "ceilings", "correctness", "waits", "steps", "profile", "speech", "training")


@pytest.fixture
def gpu_report(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    import gpu_report

    yield gpu_report


def test_a_stage_that_fails_is_told_with_its_traceback_in_the_file(gpu_report: ModuleType, tmp_path: Path) -> None:
    report = gpu_report.Report(tmp_path / "gpu.json")

    def broken() -> None:
        report.add("steps", "one result", seconds=1.5)
        raise ValueError("no such\nkernel")

    gpu_report.run_stage(report, "steps", broken, seconds=5.0)
    kept = json.loads((tmp_path / "gpu.json").read_text())
    assert [found["text"] for found in kept["steps"]] == ["one result", "FAILED: ValueError: no such kernel"]
    assert "in broken" in kept["steps"][1]["traceback"]


def test_a_stage_that_takes_too_long_is_cut(gpu_report: ModuleType, tmp_path: Path) -> None:
    report = gpu_report.Report(tmp_path / "gpu.json")
    began = time.monotonic()
    gpu_report.run_stage(report, "speech", lambda: time.sleep(30.0), seconds=0.05)
    assert time.monotonic() - began < 5.0
    assert report.found("speech")[0]["text"].startswith("cut after")
    with gpu_report.deadline(0.05):
        pass
    time.sleep(0.1)  # an alarm that was not taken back would ring now


def test_few_lines_are_printed_and_all_results_kept(
    gpu_report: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = gpu_report.Report(tmp_path / "gpu.json")
    for i in range(100):
        report.add("steps", f"result {i} {'x' * 300}")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == gpu_report.MOST_LINES and max(map(len, lines)) <= 200
    assert len(json.loads((tmp_path / "gpu.json").read_text())["steps"]) == 100


def command(folder: Path, *more: str) -> list[str]:
    script = str(REPOSITORY / "benchmarks" / "gpu.py")
    return [sys.executable, script, "--device", "cpu", "--quick", "-o", str(folder), *more]


@pytest.mark.campaign
def test_all_stages_run_on_a_cpu_and_end_with_a_table(tmp_path: Path) -> None:
    if not DATA.is_dir():
        pytest.skip(f"needs the recordings in {DATA}")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TACOTRON2_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        command(tmp_path, "--data", str(DATA)), capture_output=True, text=True, env=environment, timeout=600
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) <= 80 and not [line for line in lines if "FAILED" in line or "not measured" in line]
    assert "| tacotron2-model, fp32 |" in done.stdout and lines[-1].startswith("training: 4 steps")
    kept = json.loads((tmp_path / "gpu.json").read_text())
    assert tuple(kept) == STAGES and (tmp_path / "alignment.png").stat().st_size > 1000
    fp32 = [found for found in kept["correctness"] if not found["bf16"]]
    assert fp32 and max(found["gradient_error"] for found in fp32) < 1e-4


@pytest.mark.campaign
def test_ctrl_c_ends_it_with_what_is_known(tmp_path: Path) -> None:
    process = subprocess.Popen(
        command(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests in the background of a shell ignore it
    )  # fmt: skip
    with process:
        assert process.stdout is not None
        for line in process.stdout:
            if "correctness" in line:
                break
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
    assert process.returncode == 130
    assert "interrupted; this is known by now:" in rest and "| B | T | system |" in rest
    assert set(json.loads((tmp_path / "gpu.json").read_text())) >= {"ceilings", "correctness"}


@pytest.mark.spec
def test_without_a_gpu_it_says_so() -> None:
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    script = str(REPOSITORY / "benchmarks" / "gpu.py")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=hidden, timeout=120)
    assert done.returncode == 1 and "there is no CUDA device here" in done.stderr
