"""Faster and slower mels."""

import pytest
import torch

from common.errors import UserError
from speech.tempo import at_speed, check_speed


@pytest.mark.parametrize(("speed", "n_frames"), [(2.0, 50), (0.5, 200), (0.8, 125), (1.25, 80), (4.0, 25)])
def test_a_mel_takes_its_time_divided_by_the_speed(speed: float, n_frames: int) -> None:
    ramp = torch.arange(100.0).expand(3, -1)  # [n_mels, T]
    changed = at_speed(ramp, speed)
    assert changed.shape == (3, n_frames)
    assert (changed.diff(dim=1) >= 0).all() and abs(float(changed.mean()) - 49.5) < 0.1


def test_at_speed_one_nothing_changes() -> None:
    mel = torch.randn(4, 7)
    assert at_speed(mel, 1.0) is mel


def test_even_the_shortest_mel_keeps_a_frame() -> None:
    assert at_speed(torch.zeros(4, 1), 4.0).shape == (4, 1)


@pytest.mark.parametrize("speed", [0.0, -1.0, 5.0, float("nan"), float("inf")])
def test_a_speed_that_nobody_could_follow_is_refused(speed: float) -> None:
    with pytest.raises(UserError, match="must be from 0.25"):
        check_speed(speed)
