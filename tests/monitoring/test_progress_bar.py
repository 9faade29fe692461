"""Progress on a terminal and elsewhere."""

import io

import pytest
from rich.console import Console

from monitoring import progress_bar
from monitoring.progress_bar import counted_progress


def test_on_a_terminal_a_bar_is_drawn_from_the_first_call_on(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(progress_bar, "CONSOLE", Console(file=terminal, force_terminal=True, width=80))
    show = counted_progress("recordings")
    for done in range(4):
        show(done, 3)
    assert "recordings" in terminal.getvalue() and "0/3" in terminal.getvalue()


def test_a_label_may_hold_any_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(progress_bar, "CONSOLE", Console(file=terminal, force_terminal=True, width=80))
    counted_progress("talk {1} [/red] {x.y}.mp3")(1, 3)
    assert "talk {1} [/red] {x.y}.mp3" in terminal.getvalue()


def test_elsewhere_it_is_a_line_at_the_end(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress_bar, "CONSOLE", Console(file=io.StringIO(), force_terminal=False))
    with caplog.at_level("INFO"):
        show = counted_progress("recordings")
        for done in range(4):
            show(done, 3)
    assert caplog.text.count("recordings 3/3") == 1 and "recordings 1/3" not in caplog.text
