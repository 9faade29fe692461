"""Leaf modules of Tacotron 2, with the names of the NVIDIA layout so that its checkpoints load.

Symbols of shape comments: B batch, T_text tokens, T_mel frames, T_dec decoder steps (T_mel / r),
n_mels mel channels, E encoder width, A attention width, D hidden width of an LSTM.
"""

from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

Gain = Literal["linear", "relu", "tanh", "sigmoid"]  # of the activation that follows, for Xavier's bound
MOVE = 0.5  # u of forward attention: the chance to move on by a symbol, before the energies have their say
# Less mass than this cannot move. The gradient of log(mass) is 1 / mass, and fp32 has few digits left for it; adding a
# small number to all positions instead, as is often done, would let mass appear anywhere.
LEAST_MASS = 1e-8
SMALLEST = 1e-30  # keeps the logarithm of a weight that underflowed finite


@dataclass(frozen=True)
class Memory:
    """The encoded text as attention reads it."""

    values: Tensor  # [B, T_text, E]
    keys: Tensor  # [B, T_text, A]
    padding: Tensor  # [B, T_text]


@dataclass(frozen=True)
class AlignmentFunction:
    """How energies become weights. The default is softmax."""

    smoothing: float = 0.0  # share of the sigmoid normalisation
    is_forward: bool = False

    @property
    def is_softmax(self) -> bool:
        return not self.is_forward and self.smoothing == 0.0

    def first_weights(self, zeros: Tensor) -> Tensor:
        """What stands for the (last, summed) weights before the first step: zeros [B, 2, T_text] -> the same shape.

        Forward attention starts on the first symbol.
        """
        if self.is_forward:
            zeros[:, 0, 0] = 1.0
        return zeros

    def __call__(self, energies: Tensor, padding: Tensor, last: Tensor) -> Tensor:
        """last [B, T_text]: the weights of the step before -> weights [B, T_text]."""
        masked = energies.masked_fill(padding, float("-inf"))
        if self.is_softmax:
            return torch.softmax(masked, dim=1)
        if self.smoothing == 0.0:
            return forward_attention(masked, last)
        weights = smoothed_softmax(masked, self.smoothing)
        if not self.is_forward:
            return weights
        return forward_attention(weights.clamp(min=SMALLEST).log().masked_fill(padding, float("-inf")), last)


def smoothed_softmax(masked: Tensor, share: float) -> Tensor:
    """(1 - share) * softmax(e) + share * sigmoid(e) / sum of sigmoid(e).

    The second term is the smoothing of arXiv 1506.07503, section 2.3: bounded energies spread attention over several
    symbols. It is computed as the softmax of log sigmoid(e), whose sum can't underflow. masked [B, T_text]: energies,
    -inf in the padding.
    """
    spread = torch.softmax(F.logsigmoid(masked), dim=1)
    return torch.softmax(masked, dim=1).lerp(spread, share)


def forward_attention(scores: Tensor, last: Tensor) -> Tensor:
    """Forward attention (arXiv 1807.06736, eq. 9) with u = MOVE: attention stays on a symbol or moves on to the next.

    w_t(n) ~ [(1 - u) w_{t-1}(n) + u w_{t-1}(n - 1)] * exp(scores(n)), in the log domain: the energies of symbols that
    can't be reached may be far larger than those of symbols that can. scores [B, T_text], -inf in the padding. The
    last symbol with mass can always be stayed on, so no row is empty.
    """
    reached = (1.0 - MOVE) * last + MOVE * F.pad(last, (1, -1))  # [B, T_text]
    is_closed = reached < LEAST_MASS
    prior = reached.clamp(min=LEAST_MASS).log().masked_fill(is_closed, float("-inf"))
    return torch.softmax(scores + prior, dim=1)


class LinearNorm(nn.Module):
    """A linear layer under the key `linear_layer`, Xavier-initialised for the activation that follows it."""

    def __init__(
        self, in_dim: int, out_dim: int, *, bias: bool = True, gain: Gain = "linear", xavier: bool = True
    ) -> None:
        super().__init__()
        self.linear_layer = nn.Linear(in_dim, out_dim, bias=bias)
        if xavier:
            nn.init.xavier_uniform_(self.linear_layer.weight, gain=nn.init.calculate_gain(gain))

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in_dim] -> [..., out_dim]"""
        return self.linear_layer(x)


class ConvNorm(nn.Module):
    """A length-preserving 1-d convolution under the key `conv`, Xavier-initialised."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        bias: bool = True,
        gain: Gain = "linear",
        xavier: bool = True,
    ) -> None:
        super().__init__()
        assert kernel_size % 2 == 1, "an even kernel would shift the sequence"
        self.conv = nn.Conv1d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=bias)
        if xavier:
            nn.init.xavier_uniform_(self.conv.weight, gain=nn.init.calculate_gain(gain))

    def forward(self, x: Tensor) -> Tensor:
        """x [B, in_channels, T] -> [B, out_channels, T]"""
        return self.conv(x)


def conv_block(in_channels: int, out_channels: int, kernel_size: int, *, gain: Gain, xavier: bool) -> nn.Sequential:
    """Convolution and batch normalisation; the caller applies activation and dropout."""
    return nn.Sequential(
        ConvNorm(in_channels, out_channels, kernel_size, gain=gain, xavier=xavier), nn.BatchNorm1d(out_channels)
    )


def dropout_mask(
    shape: tuple[int, ...], rate: float, *, like: Tensor, generator: torch.Generator | None = None
) -> Tensor | None:
    """Scaled keep mask [shape], 0 or 1 / (1 - rate); None where nothing is dropped.

    Explicit masks let two implementations of a decoder share their randomness, and let synthesis be seeded.
    """
    if rate == 0.0:
        return None
    if generator is None and like.device.type == "cpu":
        return bernoulli_mask(prod(shape), rate).view(shape).to(like.dtype).mul_(1.0 / (1.0 - rate))
    mask = torch.empty(shape, dtype=like.dtype, device=like.device)
    return mask.bernoulli_(1.0 - rate, generator=generator).div_(1.0 - rate)


def bernoulli_mask(n: int, rate: float) -> Tensor:
    """[n] True with chance 1 - rate, which is rounded to a multiple of 2^-16.

    One draw of PyTorch's generator decides on four units. `bernoulli_` takes one each, and six times as long.
    """
    drawn = torch.empty(-(-n // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)[:n]
    return drawn >= min(round(rate * 2**16) - 2**15, 2**15 - 1)


class _DroppedRelu(torch.autograd.Function):
    """relu(x) * mask that keeps only its result: where that is positive, so was x, and the unit was kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor, rate: float) -> Tensor:
        y = F.relu(x).mul_(mask)
        ctx.save_for_backward(y)
        ctx.scale = 1.0 / (1.0 - rate)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (y,) = ctx.saved_tensors
        return torch.where(y > 0, grad * ctx.scale, 0.0), None, None


class _DroppedTanh(torch.autograd.Function):
    """tanh(x) * mask that keeps its result and a byte a unit."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor, rate: float) -> Tensor:
        y = torch.tanh(x).mul_(mask)
        ctx.save_for_backward(y, mask > 0)
        ctx.rate = rate
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        y, is_kept = ctx.saved_tensors
        grad = torch.where(is_kept, grad * (1.0 / (1.0 - ctx.rate)), 0.0)
        return torch.ops.aten.tanh_backward(grad, y * (1.0 - ctx.rate)), None, None


def activation_dropout(
    x: Tensor, rate: float, *, activation: Literal["relu", "tanh"], generator: torch.Generator | None = None
) -> Tensor:
    """x [...] -> activation, then dropout, [...].

    On the CPU, autograd's own way keeps four tensors of this size; this keeps one.
    """
    if x.device.type != "cpu" and generator is None:
        return F.dropout(F.relu(x) if activation == "relu" else torch.tanh(x), rate)
    mask = dropout_mask(tuple(x.shape), rate, like=x, generator=generator)
    if mask is None:
        return F.relu(x) if activation == "relu" else torch.tanh(x)
    return (_DroppedRelu if activation == "relu" else _DroppedTanh).apply(x, mask, rate)


class Prenet(nn.Module):
    """Two ReLU layers whose dropout stays on when speaking, at a rate of its own.

    dropouts: in training, where without it the decoder would learn to copy frames and ignore the text; and when
    speaking, in eval mode, where None is the same.
    """

    def __init__(self, in_dim: int, dim: int, *, dropouts: tuple[float, float | None], xavier: bool) -> None:
        super().__init__()
        self.dropout, speaking = dropouts
        self.speaking_dropout = self.dropout if speaking is None else speaking
        self.layers = nn.ModuleList(
            [LinearNorm(in_dim, dim, bias=False, xavier=xavier), LinearNorm(dim, dim, bias=False, xavier=xavier)]
        )

    @property
    def weights(self) -> list[Tensor]:
        """Of each layer, [dim, in_dim] and [dim, dim]."""
        return [layer.linear_layer.weight for layer in self.layers if isinstance(layer, LinearNorm)]

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """x [..., in_dim] -> [..., dim]; `generator` draws the dropout."""
        rate = self.dropout if self.training else self.speaking_dropout
        for layer in self.layers:
            x = activation_dropout(layer(x), rate, activation="relu", generator=generator)
        return x  # [..., prenet_dim]


class LocationLayer(nn.Module):
    """Features of where attention has been, from the previous and the summed weights (arXiv 1506.07503)."""

    def __init__(self, n_filters: int, kernel_size: int, attention_dim: int, *, xavier: bool) -> None:
        super().__init__()
        self.location_conv = ConvNorm(2, n_filters, kernel_size, bias=False, xavier=xavier)
        self.location_dense = LinearNorm(n_filters, attention_dim, bias=False, gain="tanh", xavier=xavier)

    def forward(self, weights: Tensor) -> Tensor:
        """weights [B, 2, T_text], last and summed -> features [B, T_text, A]"""
        features = self.location_conv(weights)  # [B, n_filters, T_text]
        return self.location_dense(features.transpose(1, 2))  # [B, T_text, A]

    def folded_kernel(self) -> Tensor:
        """Convolution and projection are both linear: one kernel [A, 2, kernel_size] equals the pair."""
        conv, dense = self.location_conv.conv.weight, self.location_dense.linear_layer.weight
        return torch.einsum("af,fck->ack", dense, conv)


class Attention(nn.Module):
    """Location-sensitive attention: e[t, n] = v . tanh(W s_t + V h_n + U f[t, n]), softmax over n.

    Without `use_location` the term U f is left out. Its weights keep their keys, so that checkpoints load either way,
    but want no gradient. `normalise` may be another way from energies to weights.
    """

    def __init__(
        self,
        rnn_dim: int,
        memory_dim: int,
        attention_dim: int,
        n_filters: int,
        kernel_size: int,
        *,
        xavier: bool,
        use_location: bool = True,
        normalise: AlignmentFunction | None = None,
    ) -> None:
        super().__init__()
        self.use_location, self.normalise = use_location, normalise or AlignmentFunction()
        self.query_layer = LinearNorm(rnn_dim, attention_dim, bias=False, gain="tanh", xavier=xavier)
        self.memory_layer = LinearNorm(memory_dim, attention_dim, bias=False, gain="tanh", xavier=xavier)
        self.v = LinearNorm(attention_dim, 1, bias=False, xavier=xavier)
        self.location_layer = LocationLayer(n_filters, kernel_size, attention_dim, xavier=xavier)
        self.location_layer.requires_grad_(use_location)

    def forward(
        self, query: Tensor, memory: Tensor, processed_memory: Tensor, previous: Tensor, padding: Tensor
    ) -> tuple[Tensor, Tensor]:
        """One decoder step.

        query [B, D], memory [B, T_text, E], processed_memory [B, T_text, A], previous [B, 2, T_text] (last and
        summed weights), padding [B, T_text] True behind the text  ->  context [B, E], weights [B, T_text].
        """
        summands = self.query_layer(query).unsqueeze(1)
        summands = summands + self.location_layer(previous) if self.use_location else summands
        hidden = torch.tanh(summands + processed_memory)  # [B, T_text, A]
        energies = at_least_float32(self.v(hidden).squeeze(2))
        weights = self.normalise(energies, padding, previous[:, 0])  # [B, T_text]
        context = torch.bmm(weights.to(memory.dtype).unsqueeze(1), memory).squeeze(1)  # [B, E]
        return context, weights


def add_to_text(memory: Tensor, vector: Tensor, text_lengths: Tensor) -> Tensor:
    """One vector for each utterance, added wherever it has text: memory [B, T_text, E], vector [B, E]."""
    is_padding = padding_mask(text_lengths, memory.size(1)).unsqueeze(2)
    return memory + vector.unsqueeze(1).masked_fill(is_padding, 0.0)


def at_least_float32(x: Tensor) -> Tensor:
    """x [...] in float32: half precision is too coarse for softmax and losses; double stays double."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def padding_mask(lengths: Tensor, size: int) -> Tensor:
    """True where a position lies behind the sequence: lengths [B] -> [B, size]."""
    return torch.arange(size, device=lengths.device)[None, :] >= lengths[:, None]
