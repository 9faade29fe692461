"""Validations of runs as a table and a picture: `python benchmarks/curve.py output other -o curve.png`."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from monitoring.plots import curves_figure, save_png
from run_directory.metrics_log import read_metrics

SHOWN = ("alignment", "coverage", "monotonicity", "stop_rate", "mel_distance")


def validations(run: Path) -> list[dict[str, Any]]:
    """Eval records of a run, each with the minutes since its first record."""
    records = read_metrics(run)
    if not records:
        sys.exit(f"{run}: no metrics.jsonl with records in it; name a run directory")
    began = records[0]["time"]
    return [{**r, "minutes": (r["time"] - began) / 60} for r in records if r["type"] == "eval"]


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = ["| step | min | " + " | ".join(SHOWN) + " | mel_post |", "|---" * (len(SHOWN) + 3) + "|"]
    for row in rows:
        free = [f"{row['free_running'][name]:.3f}" for name in SHOWN]
        lines.append(f"| {row['step']} | {row['minutes']:.1f} | {' | '.join(free)} | {row['losses']['mel_post']:.3f} |")
    return "\n".join(lines)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("runs", nargs="+", type=Path)
    p.add_argument("-o", "--output", type=Path, help="a PNG of alignment, stop rate and mel distance over the steps")
    args = p.parse_args()
    curves = {}
    for run in args.runs:
        rows = validations(run)
        print(f"{run.name}\n\n{table(rows)}\n")
        for name in ("alignment", "stop_rate", "mel_distance"):
            label = name if len(args.runs) == 1 else f"{run.name} {name}"
            curves[label] = ([r["step"] for r in rows], [r["free_running"][name] for r in rows])
    if args.output:
        figure = curves_figure(curves, title="Speaking freely, over training", value_label="share; distance in sd")
        save_png(figure, args.output)


if __name__ == "__main__":
    main()
