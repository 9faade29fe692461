"""The cost of attention that moves backwards."""

import torch
from torch import Tensor
from torch.nn import functional as F

from layers import padding_mask
from loss_function import masked_mean


def monotonicity_loss(alignments: Tensor, text_lengths: Tensor, steps: Tensor) -> Tensor:
    """How far attention moves backward in a step, as a share of the text: mean over valid decoder steps.

    With the mean position m[t] = sum_n n a[t, n], step t costs max(0, m[t-1] - m[t]) / N, the first one nothing; after
    Regotron (arXiv 2204.13437), without a margin, as attention may stay on a long sound.
    alignments [B, T_dec, T_text], text_lengths [B], steps [B].
    """
    T_dec, T_text = alignments.shape[1:]
    position = alignments @ torch.arange(T_text, device=alignments.device, dtype=alignments.dtype)  # [B, T_dec]
    backward = F.relu(position[:, :-1] - position[:, 1:]) / text_lengths[:, None]
    return masked_mean(F.pad(backward, (1, 0)), padding_mask(steps, T_dec))
