"""Processor time of a training step over frames, utterances and symbols: `python benchmarks/scaling.py -o scaling.png`.

The full-size model, one thread; the least of two steps each, after one to warm up.
"""

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from systems import Ours, Shape, Training, TrainingBatch
from worker import timed

from monitoring.plots import save_png

BASE = Shape(B=16, T_mel=200, T_text=120)
SWEEPS = {"T_mel": (100, 200, 400, 800), "B": (4, 8, 16, 32), "T_text": (30, 60, 120, 240)}
LABELS = {"T_mel": "frames", "B": "utterances", "T_text": "symbols"}


def seconds(training: Training, shape: Shape, *, bf16: bool) -> float:
    batch = TrainingBatch.of(shape)
    return min(timed(lambda: training.step(batch, bf16=bf16))["cpu_seconds"] for _ in range(2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True, help="a PNG")
    output = parser.parse_args().output
    torch.set_num_threads(1)
    training = Training(Ours())
    figure = Figure(figsize=(9, 2.6), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (name, sizes) in zip(figure.subplots(1, len(SWEEPS)), SWEEPS.items(), strict=True):
        for bf16 in (False, True):
            seconds(training, replace(BASE, T_mel=10), bf16=bf16)
            times = [seconds(training, replace(BASE, **{name: size}), bf16=bf16) for size in sizes]
            precision = "bf16" if bf16 else "fp32"
            print(f"{precision} {LABELS[name]:11}", *(f"{n}: {t:.2f} s" for n, t in zip(sizes, times, strict=True)))
            axes.plot(sizes, times, marker="o", label=precision)
        axes.set(xlabel=LABELS[name], xlim=(0, None), ylim=(0, None))
        axes.grid(visible=True, alpha=0.3)
    figure.axes[0].set_ylabel("seconds a step")
    figure.axes[0].legend()
    save_png(figure, output)


if __name__ == "__main__":
    main()
