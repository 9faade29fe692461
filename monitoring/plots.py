"""Pictures of what the model does: alignments, mels, the gate, curves.

Figures are made without pyplot, so that any thread may draw (trackers do) and nothing global is left behind.
Mels are [n_mels, T_mel] in natural log, alignments [T_dec, T_text]; titles and symbols are never read as mathematics.
"""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from common.files import atomic_file

MAX_SYMBOL_LABELS = 60  # more don't fit at a readable size
DOTS_PER_INCH = 100
TITLE_CHARACTERS = 120  # a line across the widest figure
OPEN_BOX = "\u2423"  # how a space is shown on an axis


def alignment_figure(alignment: np.ndarray, *, text: Sequence[str] | None = None, title: str = "Alignment") -> Figure:
    """Attention weights [T_dec, T_text]. text: T_text symbols, one string each, for the ticks (60 at most)."""
    figure = new_figure(width=8.0, height=6.0)
    draw_alignment(figure.add_subplot(), alignment, text=text, title=title)
    return figure


def mel_figure(
    predicted: np.ndarray, *, frame_s: float, target: np.ndarray | None = None, title: str = "Mel spectrogram"
) -> Figure:
    """Predicted log-mel [n_mels, T_mel], above the target if there is one, on common time and colour scales.

    frame_s: seconds per frame (hop_length / sampling_rate).
    """
    mels = {title: predicted} if target is None else {f"{title}: predicted": predicted, f"{title}: target": target}
    figure = new_figure(width=8.0, height=3.0 * len(mels))
    _draw_mels(list(figure.subplots(len(mels), squeeze=False)[:, 0]), mels, frame_s=frame_s)
    return figure


def gate_figure(
    gate: np.ndarray, *, target: np.ndarray | None = None, threshold: float = 0.5, title: str = "Gate"
) -> Figure:
    """Probability of the end at each decoder step [T_dec], with the threshold that stops decoding."""
    figure = new_figure(width=8.0, height=3.0)
    _draw_gate(figure.add_subplot(), gate, target=target, threshold=threshold, title=title)
    return figure


def sample_figure(
    alignment: np.ndarray,
    *,
    predicted_mel: np.ndarray,
    frame_s: float,
    target_mel: np.ndarray | None = None,
    gate: np.ndarray | None = None,
    text: Sequence[str] | None = None,
    threshold: float = 0.5,
    title: str = "",
) -> Figure:
    """One utterance at a glance: alignment [T_dec, T_text] on the left; predicted and target mel [n_mels, T_mel] and
    gate [T_dec] on the right. frame_s: seconds per frame.
    """
    mels = (
        {"Predicted mel": predicted_mel}
        if target_mel is None
        else {"Predicted mel": predicted_mel, "Target mel": target_mel}
    )
    n_rows = len(mels) + (gate is not None)
    figure = new_figure(width=14.0, height=8.0)
    # Not matplotlib's own wrapping: it reads the pieces as mathematics whatever it is told.
    figure.suptitle(textwrap.fill(title, TITLE_CHARACTERS), parse_math=False)
    grid = figure.add_gridspec(n_rows, 2)
    draw_alignment(figure.add_subplot(grid[:, 0]), alignment, text=text, title="Alignment")
    axes = [figure.add_subplot(grid[row, 1]) for row in range(n_rows)]
    _draw_mels(axes[: len(mels)], mels, frame_s=frame_s)
    if gate is not None:
        _draw_gate(axes[-1], gate, target=None, threshold=threshold, title="Gate")
    return figure


def curves_figure(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    title: str = "Losses",
    value_label: str = "loss",
    log_scale: bool = False,
) -> Figure:
    """Lines over training steps by name: {name: (steps, values)}. A value that is not finite leaves a gap."""
    figure = new_figure(width=8.0, height=4.5)
    axes = figure.add_subplot()
    for name, (steps, values) in curves.items():
        finite = np.asarray(values, dtype=float)
        finite = np.where(np.isfinite(finite), finite, np.nan)
        # A marker, since a line of one point, or between two gaps, is invisible.
        axes.plot(np.asarray(steps), finite, label=name, linewidth=1.2, marker=".", markersize=3)
    if log_scale:
        axes.set_yscale("log", nonpositive="mask")
    axes.set_xlabel("training step")
    axes.set_ylabel(value_label)
    axes.set_title(title, parse_math=False)
    axes.grid(alpha=0.3)
    if curves:
        for label in axes.legend(fontsize="small").get_texts():
            label.set_parse_math(False)
    return figure


def figure_to_array(figure: Figure) -> np.ndarray:
    """The drawn picture, uint8 [H, W, 3]."""
    canvas = _canvas(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[:, :, :3].copy()


def save_png(figure: Figure, path: Path) -> None:
    """Write the picture so that `path` is either the old file or the whole new one; makes missing folders."""
    with atomic_file(path) as stream:
        _canvas(figure).print_png(stream)


def new_figure(*, width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)  # becomes figure.canvas
    return figure


def _canvas(figure: Figure) -> FigureCanvasAgg:
    assert isinstance(figure.canvas, FigureCanvasAgg), "figures of this module have an Agg canvas"
    return figure.canvas


def draw_alignment(axes: Axes, alignment: np.ndarray, *, text: Sequence[str] | None, title: str) -> None:
    """Into axes: attention weights [T_dec, T_text]; text: T_text symbols, one string each."""
    # From 0 to the largest weight: blur stays visible early on, and the colour bar tells how strong it is.
    image = axes.imshow(
        alignment.T,
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        cmap="viridis",
        vmin=0.0,
        vmax=_finite_range([alignment])[1],
    )
    axes.figure.colorbar(image, ax=axes, label="attention weight", fraction=0.04, aspect=40, pad=0.02)
    axes.set_xlabel("decoder step")
    axes.set_ylabel("symbol")
    axes.set_title(title, parse_math=False)
    if text is not None:
        assert len(text) == alignment.shape[1], (len(text), alignment.shape)
        if len(text) <= MAX_SYMBOL_LABELS:
            labels = [OPEN_BOX if symbol == " " else symbol for symbol in text]
            axes.set_yticks(range(len(labels)), labels, fontsize=8, parse_math=False)


def _draw_mels(axes: Sequence[Axes], mels: Mapping[str, np.ndarray], *, frame_s: float) -> None:
    low, high = _finite_range(list(mels.values()))
    longest_s = max(mel.shape[1] for mel in mels.values()) * frame_s
    for ax, (title, mel) in zip(axes, mels.items(), strict=True):
        extent = (0.0, mel.shape[1] * frame_s, -0.5, mel.shape[0] - 0.5)
        image = ax.imshow(
            mel,
            origin="lower",
            aspect="auto",
            interpolation="nearest",
            cmap="magma",
            extent=extent,
            vmin=low,
            vmax=high,
        )
        ax.figure.colorbar(image, ax=ax, label="log-mel (ln)", fraction=0.04, pad=0.02)
        ax.set_xlim(0.0, longest_s)
        ax.set_xlabel("time (s)")
        ax.set_ylabel("mel channel")
        ax.set_title(title, parse_math=False)


def _draw_gate(axes: Axes, gate: np.ndarray, *, target: np.ndarray | None, threshold: float, title: str) -> None:
    axes.plot(np.arange(len(gate)), gate, linewidth=1.5, marker=".", markersize=3, label="gate")
    if target is not None:
        axes.plot(np.arange(len(target)), target, linewidth=1.0, linestyle="--", label="target")
    axes.axhline(threshold, color="grey", linewidth=1.0, linestyle=":", label=f"threshold {threshold:g}")
    axes.set_ylim(-0.05, 1.05)
    axes.set_xlim(-0.5, max(len(gate), 1) - 0.5)  # as the alignment's
    axes.set_xlabel("decoder step")
    axes.set_ylabel("probability of the end")
    axes.set_title(title, parse_math=False)
    axes.legend(fontsize="small", loc="upper left")


def _finite_range(arrays: Sequence[np.ndarray]) -> tuple[float, float]:
    """Smallest and largest finite value; a range of 1 where there is none, as pictures of a diverged model need."""
    values = np.concatenate([array[np.isfinite(array)].ravel() for array in arrays])
    if values.size == 0:
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    return low, high if high > low else low + 1.0
