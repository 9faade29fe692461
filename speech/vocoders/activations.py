"""The periodic activations of BigVGAN (Lee et al. 2022, arXiv 2206.04658, section 3.2), on rows [B, C, 1, T]."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FILTER_TAPS = 12
RATIO = 2  # how much denser the samples are on which the activation works
REACH = 5  # samples to either side on which one of the output depends
NEVER_ZERO = 1e-9  # the authors' guard of the division


class Snake(nn.Module):
    """x + sin(alpha x)^2 / beta. Version 1 has beta = alpha; version 2 (snakebeta) trains both."""

    def __init__(self, channels: int, *, has_beta: bool, is_log_scale: bool) -> None:
        super().__init__()
        self.is_log_scale = is_log_scale
        start = torch.zeros if is_log_scale else torch.ones
        self.alpha = nn.Parameter(start(channels))
        self.beta = nn.Parameter(start(channels)) if has_beta else None

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, 1, T] -> the same shape"""
        frequency = self._scale(self.alpha)
        magnitude = frequency if self.beta is None else self._scale(self.beta)
        return x + torch.sin(x * frequency).square() / (magnitude + NEVER_ZERO)

    def _scale(self, parameter: Tensor) -> Tensor:
        column = parameter.view(1, -1, 1, 1)
        return column.exp() if self.is_log_scale else column


class LowPass(nn.Module):
    """A filter that the generator's file holds: all zero until it is loaded."""

    filter: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("filter", torch.zeros(1, 1, FILTER_TAPS))

    def kernel(self, channels: int) -> Tensor:
        """[channels, 1, 1, taps]: the same for each."""
        return self.filter.unsqueeze(2).expand(channels, -1, -1, -1)


class AntiAliased(nn.Module):
    """An activation on samples twice as dense, low-passed before and after, so that its overtones do not fold back."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.act = activation
        self.upsample = LowPass()
        self.downsample = nn.ModuleDict({"lowpass": LowPass()})  # the names of the authors' files

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, 1, T] -> the same shape"""
        return self._thinned(self.act(self._densified(x)))

    def _densified(self, x: Tensor) -> Tensor:
        """[B, C, 1, T] -> [B, C, 1, 2 T]."""
        channels, edge = x.shape[1], FILTER_TAPS // RATIO - 1
        padded = F.pad(x, (edge, edge, 0, 0), mode="replicate")
        dense = F.conv_transpose2d(padded, self.upsample.kernel(channels), stride=(1, RATIO), groups=channels)
        cut = edge * RATIO + (FILTER_TAPS - RATIO) // 2
        return RATIO * dense[..., cut:-cut]

    def _thinned(self, x: Tensor) -> Tensor:
        """[B, C, 1, 2 T] -> [B, C, 1, T]."""
        channels = x.shape[1]
        lowpass = self.downsample["lowpass"]
        assert isinstance(lowpass, LowPass)
        padded = F.pad(x, (FILTER_TAPS // 2 - 1, FILTER_TAPS // 2, 0, 0), mode="replicate")
        return F.conv2d(padded, lowpass.kernel(channels), stride=(1, RATIO), groups=channels)
