"""The last stage of `gpu.py`: the ordinary command on real speech, for some minutes."""

import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gpu_report import Report

from run_directory.metrics_log import read_metrics

TRAIN = Path(__file__).resolve().parents[1] / "train.py"
QUIET = (
    "mlflow_logging=False,tensorboard_logging=False,telegram_monitoring=False,debug_reporting=False,save_interval=0,"
    "iters_per_checkpoint=1000000,early_stopping=False,epochs=100000"
)
FULL_SIZE = (
    "batch_size=64,fp16_run=True,n_frames_per_step=2,learning_rate=1e-3,warmup_steps=200,validate_interval=250,"
    "attention_plot_frequency=250"
)
SMALL = "batch_size=4,validate_interval=2,attention_plot_frequency=2"


def train(report: Report, data: Path, *, seconds: float, is_quick: bool, folder: Path) -> None:
    """data: a folder with train.csv and val.csv, or filelists/train.txt and val.txt, and the recordings they name."""
    with tempfile.TemporaryDirectory() as scratch:
        lists = filelists(data, Path(scratch), n_lines=8 if is_quick else None)
        files = ",".join(f"{name}_files={path}" for name, path in lists.items())
        overrides = f"{files},dataset_path={data},{QUIET},{SMALL if is_quick else FULL_SIZE}"
        command = [sys.executable, str(TRAIN), "-o", f"{scratch}/run", "-l", f"{scratch}/logs", "--hparams", overrides]
        limit = ["--preset", "small", "--max-steps", "4"] if is_quick else ["--max-minutes", f"{seconds / 60:.2f}"]
        try:
            follow(report, [*command, *limit], patience_s=seconds + 60.0)
        finally:
            tell(report, Path(scratch) / "run", folder)


def filelists(data: Path, scratch: Path, *, n_lines: int | None) -> dict[str, Path]:
    """The corpus's own lists, or their first lines."""
    found = {}
    for kind, name in (("training", "train"), ("validation", "val")):
        candidates = (data / f"filelists/{name}.txt", data / f"{name}.csv")
        path = next((each for each in candidates if each.exists()), None)
        if path is None:
            raise FileNotFoundError(f"--data: there is neither {candidates[0]} nor {candidates[1]}")
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        found[kind] = scratch / path.name
        found[kind].write_text("".join(lines[:n_lines]), encoding="utf-8")
    return found


def follow(report: Report, command: list[str], *, patience_s: float) -> None:
    """Runs it to its end; it is asked to stop when this stage's time is over, or somebody stops this one."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        output, _ = process.communicate(timeout=patience_s)
    except BaseException:  # noqa: BLE001 - whatever ends this process, the training must not outlive it; raised again
        process.send_signal(signal.SIGTERM)
        try:
            process.communicate(timeout=10.0)
        except subprocess.TimeoutExpired:
            process.kill()
        raise
    if process.returncode:
        last = " ".join(output.strip().splitlines()[-1:])
        report.add("training", f"train.py ended with {process.returncode}: {last[:150]}", exit_code=process.returncode)


def tell(report: Report, run: Path, folder: Path) -> None:
    """The curve, how fast it went, and the last picture of what the voice does alone."""
    records = read_metrics(run)
    steps = [record for record in records if record["type"] == "step"]
    validations = [record for record in records if record["type"] == "eval"]
    if not steps and not validations:
        report.add("training", "no step was recorded")
        return
    began = records[0]["time"]
    for record in validations[:: max(1, len(validations) // 6)]:
        report.add("training", described(record, began), **record)
    if steps:
        settled = [record["frames_per_s"] for record in steps[3:] or steps]
        speed = statistics.median(settled)
        text = f"{steps[-1]['step']} steps, {speed / 1e3:.1f} k frames/s sustained, waiting for data "
        waits = statistics.median(record["data_wait"] for record in steps)
        report.add("training", f"{text}{waits:.1%}", frames_per_s=speed, data_wait=waits, curve=steps)
    pictures = sorted((run / "alignments").glob("*.png"), key=lambda path: path.stat().st_mtime)
    if pictures:
        shutil.copy(pictures[-1], folder / "alignment.png")


def described(record: Mapping[str, Any], began: float) -> str:
    free = record["free_running"]
    alignment, stops = (free.get(name, float("nan")) for name in ("alignment", "stop_rate"))
    began_s, loss = record["time"] - began, record["losses"]["mel_post"]
    return (
        f"step {record['step']} after {began_s:.0f} s: mel loss {loss:.3f}; alone: alignment {alignment:.2f}, "
        f"stops {stops:.2f}"
    )
