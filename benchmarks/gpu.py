"""Everything about one GPU in one run of ten minutes: `python benchmarks/gpu.py -o gpu_results --data CORPUS`.

Stages: what the device reaches at most; whether loss and gradients are right; training steps beside tacotron2-model;
a profile; free-running speech; whether a step ever waits for the device; and some minutes of training on real speech
by the ordinary command. CORPUS is a folder with train.csv and val.csv (as `kathleen_filelists.py` makes them), or with
filelists/train.txt and filelists/val.txt. Each result is a line at once, all are kept in gpu.json, and whatever ends
the run, the table of what is known by then comes last.
`--device cpu --quick` goes through all stages small.
"""

import argparse
import platform
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

sys.path.insert(0, str(Path(__file__).resolve().parent))

import torch
from gpu_report import Report, run_stage
from gpu_stages import Setup, ceilings, correctness, profile, speech, steps, waits
from gpu_training import train

RESERVED_S = 15.0  # for the table, and for a training that has to save
# Seconds at most for each stage of ten minutes; training gets what is left.
STAGES: dict[str, tuple[Callable[[Setup], None], float]] = {
    "ceilings": (ceilings, 20.0),
    "correctness": (correctness, 70.0),
    "waits": (waits, 40.0),
    "steps": (steps, 150.0),
    "profile": (profile, 25.0),
    "speech": (speech, 40.0),
}


def machine(device: torch.device) -> str:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return f"{name}, torch {torch.__version__}, CUDA {torch.version.cuda}, Python {platform.python_version()}"


def table(report: Report) -> str:
    """What is known, for docs/performance.md."""
    rows = [found for found in report.found("steps") if "seconds" in found]
    columns = ("B", "T", "system", "ms a step", "k frames/s", "x the baseline", "of the ceiling", "peak GiB")
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for row in rows:
        base = max((r["frames_per_s"] for r in rows if r["B"] == row["B"] and "tacotron2" in r["label"]), default=0.0)
        ratio = f"{row['frames_per_s'] / base:.2f}" if base else ""
        speed = f"{1e3 * row['seconds']:.0f} | {row['frames_per_s'] / 1e3:.1f} | {ratio} | {row['share']:.1%}"
        lines.append(f"| {row['B']} | {row['T']} | {row['label']} | {speed} | {row['peak_gib']:.2f} |")
    for stage in ("waits", "training"):
        lines += [f"{stage}: {found['text']}" for found in report.found(stage)[-1:]]
    return "\n".join(lines)


def run(args: argparse.Namespace, report: Report) -> None:
    device = torch.device(args.device)
    setup = (Setup.quick if args.quick else Setup)(device, report)
    report.add("machine", machine(device))
    end_s = 60.0 * args.minutes - RESERVED_S
    for name, (stage, most_s) in STAGES.items():
        if name in args.only:
            run_stage(report, name, lambda: stage(setup), seconds=min(most_s, end_s - report.elapsed_s))  # noqa: B023
    left = end_s - report.elapsed_s
    if "training" in args.only and args.data is None:
        report.add("training", "no --data: not trained")
    elif "training" in args.only:
        run_stage(
            report, "training",
            lambda: train(report, args.data, seconds=min(300.0, left - 60.0), is_quick=args.quick, folder=args.output),
            seconds=left,
        )  # fmt: skip


def stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("gpu_results"), help="where gpu.json and pictures go")
    parser.add_argument("--data", type=Path, help="the corpus to train on; without it nothing is trained")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="all stages small")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--only", nargs="+", choices=(*STAGES, "training"), default=(*STAGES, "training"))
    args = parser.parse_args(argv)
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("there is no CUDA device here; --device cpu --quick goes through all stages small")
    args.output.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, stop)
    report = Report(args.output / "gpu.json")
    try:
        run(args, report)
    except KeyboardInterrupt:
        print("interrupted; this is known by now:")
        return 130
    finally:
        print(table(report), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
