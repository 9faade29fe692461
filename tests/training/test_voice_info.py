"""What a voice remembers of its corpus is no single recording's."""

from types import SimpleNamespace
from typing import cast

import pytest

from corpus.batch import MelDataset
from training.voice_info import slowest_frames_per_symbol


@pytest.mark.parametrize("n", [12, 400])
def test_one_recording_far_too_long_does_not_set_the_length_of_every_text(n: int) -> None:
    usual = [(20, 20 * 5 + i % 10) for i in range(n)]  # symbols and frames
    odd = SimpleNamespace(lengths=[*usual, (13, 13 * 1000)])
    assert slowest_frames_per_symbol(cast(MelDataset, odd)) < 3.1 * 5.3
