"""What is doubtful about an utterance, seen in its attention, its stop and by a listener."""

import numpy as np
import pytest

from run_directory.records import Sample
from speech.self_check import examine, examiner
from speech.utterance import SynthesizedUtterance

TEXT = "the low tone rings"
N = len(TEXT)


def utterance(path: list[int], *, weight: float = 0.9, stop_reason: str = "gate") -> SynthesizedUtterance:
    """Attention rests on one symbol of TEXT at each step with so much weight; the rest is spread evenly."""
    alignment = np.full((len(path), N), (1 - weight) / (N - 1), np.float32)
    alignment[np.arange(len(path)), path] = weight
    steps = np.zeros(len(path), np.float32)
    mel = np.zeros((2, len(path)), np.float32)
    wav = np.zeros(800, np.float32)
    sample = Sample(TEXT, list(TEXT), alignment, steps, mel, None, stop_reason, wav, 8000, 0.05)
    return SynthesizedUtterance(wav, sample, step_s=0.05)


WELL = [n for n in range(N) for _ in range(2)]


def test_a_text_read_through_once_raises_no_doubt() -> None:
    found = examine(utterance(WELL))
    assert found.doubts == () and 0 <= found.badness < 0.2


@pytest.mark.parametrize(
    ("path", "changes", "doubt"),
    [
        (WELL[:10] + WELL[20:], {}, "passed over"),
        (WELL[:18], {}, "did not reach the end of the text"),
        (WELL[:24] + WELL[4:], {}, "went back by 9 symbols"),
        ([0] * 40 + WELL, {}, "stayed on one symbol for 2.1 s"),
        (WELL, {"weight": 0.2}, "attention is blurred"),
        (WELL, {"stop_reason": "budget"}, "did not stop: cut at the length allowed"),
        (WELL, {"stop_reason": "dwell"}, "the stop gate did not fire"),
    ],
)
def test_each_fault_is_named_and_worse_than_none(path: list[int], changes: dict, doubt: str) -> None:
    found = examine(utterance(path, **changes))
    assert any(doubt in each for each in found.doubts), found
    assert found.badness > examine(utterance(WELL)).badness or "stayed" in doubt or "back" in doubt


def test_what_was_passed_over_is_shown() -> None:
    (doubt,) = [each for each in examine(utterance(WELL[:8] + WELL[16:])).doubts if "passed over" in each]
    assert doubt == "passed over 3 symbols: low"


def test_a_long_rest_on_a_space_is_a_pause_and_no_fault() -> None:
    assert examine(utterance(WELL[:8] + [3] * 40 + WELL[8:])).doubts == ()


def test_what_a_listener_mishears_counts_and_is_quoted() -> None:
    def deaf(_wav: np.ndarray, _rate: int, text: str) -> tuple[float, str]:
        assert text == TEXT
        return 0.8, "hello"

    found = examine(utterance(WELL), deaf)
    assert found.doubts == ("heard as 'hello'",) and found.heard == "hello"
    assert found.badness == pytest.approx(examine(utterance(WELL)).badness + 1.6)
    assert examine(utterance(WELL), lambda *_: (0.1, TEXT)).doubts == ()


def test_who_cannot_listen_says_why(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    assert examiner("hsb") is examine
    assert "attention and stop alone: no words can be heard in language=hsb" in caplog.text
    monkeypatch.setattr("listeners.packages.find_spec", lambda _: None)
    assert examiner("en") is examine and "missing here; install it with" in caplog.text



