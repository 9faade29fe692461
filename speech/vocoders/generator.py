"""The generators of HiFi-GAN (Kong et al. 2020, arXiv 2010.05646) and of BigVGAN (Lee et al. 2022, arXiv 2206.04658).

Both are one network: a mel is upsampled stage by stage, and after each stage residual blocks with different kernels
are averaged. They differ in the activation. Names of parameters are those of the authors' files.

Signals are rows [B, C, 1, T] in channels-last order: oneDNN convolves them 1.2 to 2.8 times as fast as [B, C, T].
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from speech.vocoders.activations import REACH, AntiAliased, Snake
from speech.vocoders.generator_config import GeneratorConfig

EDGE_KERNEL = 7  # of the first and the last convolution
SLOPE, LAST_SLOPE = 0.1, 0.01  # of HiFi-GAN's leaky rectifiers; the last one is at PyTorch's default


class MakesActivation(Protocol):
    """A new activation for so many channels."""

    def __call__(self, channels: int) -> nn.Module: ...


@dataclass(frozen=True)
class Reach:
    """How far around a stretch of samples one must look: so many before it and after it."""

    before: int
    after: int

    def widened(self, by: int) -> "Reach":
        return Reach(self.before + by, self.after + by)

    def through_upsampling(self, *, rate: int, kernel: int) -> "Reach":
        """The same in samples before an upsampling convolution of (kernel - rate) / 2 padding."""
        padding = (kernel - rate) // 2
        return Reach(
            before=(self.before + kernel - 1 - padding) // rate,
            after=(self.after - 1 + padding) // rate + 1,
        )


class Generator(nn.Module):
    """[B, n_mels, T] log-mel -> [B, T * hop_size] sound in [-1, 1]."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        new_activation = _activations_of(config)
        channels = [config.upsample_initial_channel >> i for i in range(len(config.upsample_rates) + 1)]
        self.conv_pre = convolution(config.num_mels, channels[0], kernel=EDGE_KERNEL)
        self.before_upsampling = nn.Identity() if config.is_bigvgan else nn.LeakyReLU(SLOPE)
        upsamplings = zip(channels, channels[1:], config.upsample_kernel_sizes, config.upsample_rates, strict=False)
        self.ups = nn.ModuleList(_upsampling(*shape, is_nested=config.is_bigvgan) for shape in upsamplings)
        self.resblocks = nn.ModuleList(
            ResidualBlock(width, kernel, dilations, is_double=config.resblock == "1", new_activation=new_activation)
            for width in channels[1:]
            for kernel, dilations in zip(config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True)
        )
        self.activation_post = new_activation(channels[-1]) if config.is_bigvgan else nn.LeakyReLU(LAST_SLOPE)
        self.conv_post = convolution(channels[-1], 1, kernel=EDGE_KERNEL, has_bias=config.use_bias_at_final)
        self.reach, *self._reach_after_stage = reaches(config)

    def forward(self, mel: Tensor, context: Reach = Reach(0, 0)) -> Tensor:  # noqa: B008 (frozen)
        """context: how many of the first and the last frames are only there to be looked at and make no sound."""
        x = self.conv_pre(mel.unsqueeze(2).contiguous(memory_format=torch.channels_last))  # [B, C, 1, T]
        for i, (up, rate, needed) in enumerate(
            zip(self.ups, self.config.upsample_rates, self._reach_after_stage, strict=True)
        ):
            x = self._blocks(i, up(self.before_upsampling(x)))
            context = Reach(context.before * rate, context.after * rate)
            x, context = _narrowed(x, context, needed)
        x = self.conv_post(self.activation_post(x))
        x = torch.tanh(x) if self.config.use_tanh_at_final else x.clamp(-1.0, 1.0)
        return _narrowed(x, context, Reach(0, 0))[0][:, 0, 0]  # [B, L]

    def _blocks(self, stage: int, x: Tensor) -> Tensor:
        n_blocks = len(self.config.resblock_kernel_sizes)
        first, *others = self.resblocks[stage * n_blocks : (stage + 1) * n_blocks]
        total = first(x)
        for block in others:
            total = total + block(x)
        return total / n_blocks


class ResidualBlock(nn.Module):
    """Dilated convolutions, each added to what it reads; in a double block ("1") a plain one follows each."""

    def __init__(
        self,
        channels: int,
        kernel: int,
        dilations: Sequence[int],
        *,
        is_double: bool,
        new_activation: MakesActivation,
    ) -> None:
        super().__init__()
        self.is_double = is_double
        dilated = nn.ModuleList(convolution(channels, channels, kernel=kernel, dilation=d) for d in dilations)
        if is_double:
            self.convs1 = dilated
            self.convs2 = nn.ModuleList(convolution(channels, channels, kernel=kernel) for _ in dilations)
        else:
            self.convs = dilated
        n_activations = len(dilations) * (2 if is_double else 1)
        self.activations = nn.ModuleList(new_activation(channels) for _ in range(n_activations))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, 1, T] -> the same shape"""
        if not self.is_double:
            for activation, conv in zip(self.activations, self.convs, strict=True):
                x = x + conv(activation(x))
            return x
        pairs = zip(self.activations[::2], self.convs1, self.activations[1::2], self.convs2, strict=True)
        for activation1, conv1, activation2, conv2 in pairs:
            x = x + conv2(activation2(conv1(activation1(x))))
        return x


def reaches(config: GeneratorConfig) -> list[Reach]:
    """How much of the mel, then of the signal after each stage, the sound of some frames depends on."""
    activation = REACH if config.is_bigvgan else 0
    needed = [Reach(0, 0).widened(EDGE_KERNEL // 2 + activation)]
    for rate, kernel in zip(reversed(config.upsample_rates), reversed(config.upsample_kernel_sizes), strict=True):
        inside = needed[0].widened(_reach_of_blocks(config, activation))
        needed.insert(0, inside.through_upsampling(rate=rate, kernel=kernel))
    return [needed[0].widened(EDGE_KERNEL // 2), *needed[1:]]


def _reach_of_blocks(config: GeneratorConfig, activation: int) -> int:
    def reach(kernel: int, dilation: int) -> int:
        plain = activation + kernel // 2 if config.resblock == "1" else 0
        return activation + dilation * (kernel // 2) + plain

    blocks = zip(config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True)
    return max(sum(reach(kernel, dilation) for dilation in dilations) for kernel, dilations in blocks)


def _narrowed(x: Tensor, context: Reach, needed: Reach) -> tuple[Tensor, Reach]:
    """[B, C, 1, T] without the context that no later stage looks at, and what is left of the context."""
    first, last = max(0, context.before - needed.before), max(0, context.after - needed.after)
    return x[..., first : x.shape[-1] - last], Reach(context.before - first, context.after - last)


def convolution(c_in: int, c_out: int, *, kernel: int, dilation: int = 1, has_bias: bool = True) -> nn.Conv2d:
    """[B, c_in, 1, T] -> [B, c_out, 1, T], zeros beyond the ends."""
    padding = (0, dilation * (kernel // 2))
    return nn.Conv2d(c_in, c_out, (1, kernel), dilation=(1, dilation), padding=padding, bias=has_bias)


def _upsampling(c_in: int, c_out: int, kernel: int, rate: int, *, is_nested: bool) -> nn.Module:
    """[B, c_in, 1, T] -> [B, c_out, 1, T * rate]; nested is BigVGAN's, whose files name it ups.0.0."""
    padding = (0, (kernel - rate) // 2)
    up = nn.ConvTranspose2d(c_in, c_out, (1, kernel), stride=(1, rate), padding=padding)
    return nn.Sequential(up) if is_nested else up


def _activations_of(config: GeneratorConfig) -> MakesActivation:
    def snake(channels: int) -> nn.Module:
        has_beta, is_log_scale = config.activation == "snakebeta", bool(config.snake_logscale)
        return AntiAliased(Snake(channels, has_beta=has_beta, is_log_scale=is_log_scale))

    def leaky(channels: int) -> nn.Module:
        return nn.LeakyReLU(SLOPE)

    return snake if config.is_bigvgan else leaky
