"""Teacher frames replaced by the mean frame."""

import torch
from torch import Tensor

from layers import padding_mask


def drop_frames(mel: Tensor, mel_lengths: Tensor, mean_frame: Tensor, rate: float) -> Tensor:
    """Each valid frame becomes the mean frame with probability `rate`. mel [B, n_mels, T_mel], mean_frame [n_mels]."""
    B, _, T_mel = mel.shape
    dropped = torch.rand(B, T_mel, device=mel.device) < rate
    dropped &= ~padding_mask(mel_lengths, T_mel)
    return torch.where(dropped.unsqueeze(1), mean_frame[:, None], mel)
