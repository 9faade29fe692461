"""Speaking faster or slower: the frames of a mel are set closer or wider apart before it becomes sound.

So the pitch stays, the voice needs no training for it, and the vocoder makes sound that fits. See docs/speaking.md for
what it does to the sound at which speed.
"""

import torch
from torch import Tensor

from common.errors import UserError

SLOWEST, FASTEST = 0.25, 4.0


def check_speed(speed: float) -> float:
    """UserError unless it is a number within what can still be understood."""
    if not SLOWEST <= speed <= FASTEST:  # NaN compares false as well
        raise UserError(f"--speed {speed:g}: must be from {SLOWEST:g} (slower) to {FASTEST:g} (faster); 1 is as learnt")
    return speed


def at_speed(mel: Tensor, speed: float) -> Tensor:
    """[n_mels, T] -> [n_mels, round(T / speed)], at least one frame: linear interpolation between neighbours."""
    if speed == 1.0:
        return mel
    n_frames = max(1, round(mel.size(1) / speed))
    return torch.nn.functional.interpolate(mel.unsqueeze(0), size=n_frames, mode="linear", align_corners=False)[0]
