"""Alignments of several voices side by side, as docs/troubleshooting.md shows them and says at its end how.

    python benchmarks/alignments.py -o alignments.png --panel TITLE CHECKPOINT TEXT --panel TITLE CHECKPOINT TEXT

Each panel is a text that a checkpoint says in one go, with the reason why it stopped.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from monitoring.plots import draw_alignment, new_figure, save_png
from speech.voice import Voice


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("-o", "--output", type=Path, required=True)
    p.add_argument("--panel", nargs=3, action="append", required=True, metavar=("TITLE", "CHECKPOINT", "TEXT"))
    args = p.parse_args()
    n_rows = -(-len(args.panel) // 2)
    figure = new_figure(width=12.0, height=4.2 * n_rows)
    grid = figure.subplots(n_rows, 2, squeeze=False).flat
    for axes, (title, checkpoint, text) in zip(grid, args.panel, strict=False):
        sample = Voice.load(checkpoint).speak([text])[0].sample
        draw_alignment(axes, sample.alignment, text=sample.symbols, title=f"{title} (stopped by: {sample.stop_reason})")
    save_png(figure, args.output)


if __name__ == "__main__":
    main()
