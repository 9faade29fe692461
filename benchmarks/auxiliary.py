"""What a recogniser and a second decoder have learnt, by validation: `python benchmarks/auxiliary.py RUN ... -o x.png`.

Of each run the recogniser's CTC loss and error, and mel loss and alignment of both decoders, all on the validation set
with the recording as teacher. Runs need use_mmi, use_ddc_loss or both.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from monitoring.plots import save_png
from run_directory.metrics_log import read_metrics

SHOWN = ("mmi", "mmi_error", "mel", "mel_coarse", "alignment_fine", "alignment_coarse")
PANELS = {
    "recogniser: CTC loss, and what it misreads": ("mmi", "mmi_error"),
    "mel loss": ("mel", "mel_coarse"),
    "alignment score": ("alignment_fine", "alignment_coarse"),
}
STYLES = ("-", "--", ":")


def validations(run: Path) -> list[dict[str, Any]]:
    return [record for record in read_metrics(run) if record["type"] == "eval"]


def table(rows: Sequence[Mapping[str, Any]], *, every: int) -> str:
    lines = ["| step | " + " | ".join(SHOWN) + " |", "|---" * (len(SHOWN) + 1) + "|"]
    for row in rows:
        if row["step"] % every == 0:
            values = [f"{row['losses'][name]:.3f}" if name in row["losses"] else "" for name in SHOWN]
            lines.append(f"| {row['step']} | {' | '.join(values)} |")
    return "\n".join(lines)


def figure_of(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """A panel for each kind of measure; one line style a run, one colour a measure."""
    figure = Figure(figsize=(14.0, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, names) in zip(figure.subplots(1, len(PANELS)), PANELS.items(), strict=True):
        for (run, rows), style in zip(runs.items(), STYLES, strict=False):
            for name, colour in zip(names, ("tab:blue", "tab:orange"), strict=True):
                points = [(row["step"], row["losses"][name]) for row in rows if name in row["losses"]]
                if points:
                    axes.plot(*zip(*points, strict=True), style, color=colour, label=f"{name}, {run}")
        axes.set_title(title)
        axes.set_xlabel("training step")
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("-o", "--output", type=Path, help="a PNG of all of it over the steps")
    parser.add_argument("--every", type=int, default=100, help="steps between the rows of the table")
    args = parser.parse_args()
    runs = {run.name: validations(run) for run in args.runs}
    for name, rows in runs.items():
        print(f"{name}\n\n{table(rows, every=args.every)}\n")
    if args.output:
        save_png(figure_of(runs), args.output)


if __name__ == "__main__":
    main()
