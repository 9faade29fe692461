"""Requests to stop: which signals are, and what becomes of a terminal that has closed."""

import os
import signal
from collections.abc import Iterator

import pytest

from common import signals
from common.signals import StopRequest, requests

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="terminals send no signal here")


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, int]]:
    """In the place of the streams that a person reads."""
    reading, writing = os.pipe()
    monkeypatch.setattr(signals, "STREAMS", (writing,))
    yield reading, writing
    os.close(reading)
    os.close(writing)


def test_a_terminal_that_closes_is_a_request_however_often_it_says_so(pipe: tuple[int, int]) -> None:
    with StopRequest() as stop:
        for _ in range(2):
            signal.raise_signal(signal.SIGHUP)
        assert stop.signal == signal.SIGHUP
    reading, writing = pipe
    assert os.write(writing, b"lost") == 4, "what is said afterwards harms nobody"
    assert os.read(reading, 10) == b"", "and goes nowhere"


def test_under_nohup_a_closed_terminal_stops_nothing() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert requests() == (signal.SIGTERM, signal.SIGINT)
        with StopRequest() as stop:
            signal.raise_signal(signal.SIGHUP)
        assert stop.signal is None
    finally:
        signal.signal(signal.SIGHUP, before)

