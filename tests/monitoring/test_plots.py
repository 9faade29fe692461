"""The pictures show what they are given, say their units, and never leave half a file."""

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from monitoring.plots import (
    MAX_SYMBOL_LABELS,
    alignment_figure,
    curves_figure,
    figure_to_array,
    gate_figure,
    mel_figure,
    sample_figure,
    save_png,
)
from support.paths import REPOSITORY

FRAME_S = 256 / 22050
TEXT = list("hello, $world$")
ALIGNMENT = np.eye(len(TEXT))[np.arange(42) * len(TEXT) // 42]
MEL = np.linspace(-11.5, 2.0, 80)[:, None] * np.ones(84)
GATE = np.linspace(0.0, 1.0, 42)


def tick_labels(figure: Figure) -> list[str]:
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def axis_labels(figure: Figure) -> set[str]:
    return {label for axes in figure.axes for label in (axes.get_xlabel(), axes.get_ylabel()) if label}


def test_short_text_labels_the_symbols_and_a_space_is_visible() -> None:
    labels = tick_labels(alignment_figure(ALIGNMENT, text=TEXT))
    assert labels == ["\u2423" if symbol == " " else symbol for symbol in TEXT]


def test_long_text_keeps_plain_numbers() -> None:
    n_symbols = MAX_SYMBOL_LABELS + 1
    assert "q" not in tick_labels(alignment_figure(np.eye(n_symbols), text=["q"] * n_symbols))


def test_text_of_another_length_is_refused() -> None:
    with pytest.raises(AssertionError, match="42, 14"):
        alignment_figure(ALIGNMENT, text=TEXT[:-1])


def test_dollar_signs_are_drawn_not_parsed_as_mathematics() -> None:
    figure = alignment_figure(ALIGNMENT, text=["$\\frac$"] * len(TEXT), title="costs $\\frac$ and more")
    assert figure_to_array(figure).std() > 0
    assert figure_to_array(curves_figure({"$\\frac$": ([0, 1], [1.0, 2.0])})).std() > 0
    assert figure_to_array(sample_figure(ALIGNMENT, predicted_mel=MEL, frame_s=FRAME_S, title="$\\frac$")).std() > 0


def test_axes_say_what_they_measure() -> None:
    figure = sample_figure(ALIGNMENT, predicted_mel=MEL, target_mel=MEL, gate=GATE, text=TEXT, frame_s=FRAME_S)
    assert axis_labels(figure) == {
        "decoder step",
        "symbol",
        "attention weight",
        "time (s)",
        "mel channel",
        "log-mel (ln)",
        "probability of the end",
    }


def test_predicted_and_target_mel_share_time_and_colours() -> None:
    figure = mel_figure(MEL, target=MEL[:, :40] * 2, frame_s=FRAME_S)
    upper, lower = figure.axes[:2]
    assert upper.get_xlim() == lower.get_xlim() == (0.0, pytest.approx(84 * FRAME_S))
    assert upper.images[0].get_clim() == lower.images[0].get_clim() == (-23.0, 4.0)


def test_the_brightest_pixel_of_an_alignment_is_where_the_weight_is() -> None:
    alignment = np.full((4, 6), 0.01)
    alignment[3, 1] = 0.5
    drawn = np.asarray(alignment_figure(alignment).axes[0].images[0].get_array())
    assert np.unravel_index(np.argmax(drawn), drawn.shape) == (1, 3)  # [T_text, T_dec]


def test_the_gate_shows_its_threshold_and_target() -> None:
    figure = gate_figure(GATE, target=(GATE > 0.9).astype(float), threshold=0.4)
    legend = figure.axes[0].get_legend()
    assert legend is not None
    shown = [text.get_text() for text in legend.get_texts()]
    assert shown == ["gate", "target", "threshold 0.4"]


def test_values_that_are_not_finite_leave_a_gap_in_the_curve() -> None:
    line = curves_figure({"loss": ([0, 1, 2, 3], [1.0, np.nan, np.inf, 0.5])}).axes[0].lines[0]
    assert np.isnan(line.get_ydata()).tolist() == [False, True, True, False]


@pytest.mark.parametrize("log_scale", [True, False])
def test_curves_can_be_logarithmic(log_scale: bool) -> None:
    axes = curves_figure({"loss": ([0, 1], [10.0, 0.0])}, log_scale=log_scale).axes[0]
    assert axes.get_yscale() == ("log" if log_scale else "linear")


def test_no_curves_yet_is_an_empty_picture() -> None:
    assert figure_to_array(curves_figure({})).shape == (450, 800, 3)


def test_a_diverged_model_can_be_drawn() -> None:
    figure = sample_figure(
        np.full((5, 4), np.nan), predicted_mel=np.full((8, 5), np.inf), frame_s=FRAME_S, gate=np.full(5, np.nan)
    )
    assert figure_to_array(figure).dtype == np.uint8


def test_the_array_is_the_picture_in_colour() -> None:
    picture = figure_to_array(alignment_figure(ALIGNMENT))
    assert picture.shape == (600, 800, 3) and picture.dtype == np.uint8
    assert (picture[0, 0] == 255).all() and (picture != picture[:, :, :1]).any()


def test_the_png_is_whole_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "alignments" / "step_00000100.png"
    path.parent.mkdir()
    path.write_bytes(b"old")
    save_png(gate_figure(GATE), path)
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG") and b"IEND" in content[-12:]
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_keeps_the_old_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    figure = gate_figure(GATE)
    figure.axes[0].set_title("$\\frac$", parse_math=True)  # fails while drawing
    with pytest.raises(ValueError, match="frac"):
        save_png(figure, path)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_threads_draw_the_same_picture_as_one() -> None:
    expected = figure_to_array(alignment_figure(ALIGNMENT, text=TEXT))
    pictures: list[np.ndarray] = []
    threads = [
        threading.Thread(target=lambda: pictures.append(figure_to_array(alignment_figure(ALIGNMENT, text=TEXT))))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(pictures) == 4
    assert all((picture == expected).all() for picture in pictures)


def test_pyplot_is_never_imported() -> None:
    root = REPOSITORY
    code = "import sys, monitoring.plots; print('matplotlib.pyplot' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
