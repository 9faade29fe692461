"""Global style tokens (arXiv 1803.09017), and their weights predicted from the text (TP-GST, arXiv 1808.01410).

A style is a set of weights over the tokens, one row for each attention head: [B, heads, tokens]. In training they come
from the utterance's own mel; when speaking, from the text, from another recording, or as somebody chooses them. What
they select is projected and added to the encoded text, so the decoder keeps NVIDIA's shapes with style as without.
"""

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hparams import NetworkParams
from layers import LinearNorm, add_to_text, at_least_float32, padding_mask
from settings.rules import shrunk

PREDICTOR_DIM = 64  # width of the GRU that reads the text: it decides on a few weights only
FIRST_TOKENS_STD = 0.5  # apart from each other, yet in the steep part of tanh


@dataclass(frozen=True)
class Style:
    """The style an utterance was given in a teacher-forced pass, and what its text suggests."""

    weights: Tensor  # [B, heads, tokens], each row sums to 1
    predicted: Tensor  # [B, heads, tokens], logarithms


class FrameNorm(nn.BatchNorm1d):
    """Batch normalisation over the frames inside the recordings.

    A single value has no deviation of its own: it takes the running one. Nothing here depends on how many frames lie
    inside, so no GPU has to be waited for.
    """

    def forward(self, x: Tensor, inside: Tensor) -> Tensor:  # type: ignore[override]
        """x [B, T, C, F], inside [B, T] -> [B, T, C, F]; what is not inside is of no matter."""
        assert self.running_mean is not None and self.running_var is not None
        x, mean, var = at_least_float32(x), self.running_mean, self.running_var
        counts, n = inside.to(x.dtype), inside.sum() * x.size(3)
        with torch.autocast(x.device.type, enabled=False):
            if self.training:
                mean = torch.where(n == 1, mean, torch.einsum("btcf,bt->c", x, counts) / n)
            centred = x - mean[:, None]
            if self.training:
                own = torch.einsum("btcf,bt->c", centred.square(), counts) / n
                self._remember(mean, own * n / (n - 1).clamp(min=1), n)
                var = torch.where(n == 1, var, own)
            return centred * (self.weight * torch.rsqrt(var + self.eps))[:, None] + self.bias[:, None]

    @torch.no_grad()
    def _remember(self, mean: Tensor, var: Tensor, n: Tensor) -> None:
        """The running statistics move towards those of n values, if they are several."""
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
        assert self.num_batches_tracked is not None
        momentum = self.momentum * (n > 1).to(mean.dtype)
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(var, momentum)
        self.num_batches_tracked.add_(n > 1)


class ReferenceEncoder(nn.Module):
    """2-d convolutions over (time, mel bands), then a GRU whose last state sums up the recording.

    Padding has no part in it: it is zeroed before every convolution (as the convolutions pad), left out of the
    statistics of the normalisation, and the GRU ends where the recording does.
    """

    def __init__(self, hp: NetworkParams) -> None:
        super().__init__()
        self.kernel, self.stride, self.pad = hp.ref_enc_size[0], hp.ref_enc_strides[0], hp.ref_enc_pad[0]
        widths = (1, *hp.ref_enc_filters)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, hp.ref_enc_size, hp.ref_enc_strides, hp.ref_enc_pad, bias=False)  # type: ignore[arg-type]
            for a, b in zip(widths, widths[1:], strict=False)
        )
        self.norms = nn.ModuleList(FrameNorm(width) for width in hp.ref_enc_filters)
        bands = shrunk(
            hp.n_mel_channels,
            kernel=hp.ref_enc_size[1],
            stride=hp.ref_enc_strides[1],
            pad=hp.ref_enc_pad[1],
            n_layers=len(hp.ref_enc_filters),
        )
        self.gru = nn.GRU(widths[-1] * bands, hp.ref_enc_gru_size, batch_first=True)

    @property
    def least_frames(self) -> int:
        """The shortest mel of which the convolutions leave a frame; a shorter one is filled up with zeros."""
        n = 1
        for _ in self.convolutions:
            n = max(1, (n - 1) * self.stride + self.kernel - 2 * self.pad)
        return n

    def forward(self, mel: Tensor, mel_lengths: Tensor) -> Tensor:
        """mel [B, n_mels, T_mel] standardised, mel_lengths [B] -> [B, ref_enc_gru_size]"""
        x = mel.masked_fill(padding_mask(mel_lengths, mel.size(2)).unsqueeze(1), 0.0)
        x = F.pad(x, (0, max(0, self.least_frames - mel.size(2)))).transpose(1, 2).unsqueeze(1)  # [B, 1, T_mel, n_mels]
        lengths = mel_lengths.clamp(min=self.least_frames)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = convolution(x).transpose(1, 2)  # [B, T, C, F]
            lengths = (lengths + 2 * self.pad - self.kernel) // self.stride + 1
            inside = ~padding_mask(lengths, x.size(1))
            x = F.relu(norm(x, inside)).masked_fill(~inside[:, :, None, None], 0.0).transpose(1, 2)  # [B, C, T, F]
        sequence = x.transpose(1, 2).flatten(2)  # [B, T, C * F]
        return last_state(self.gru(sequence)[0], lengths)


class StyleTokens(nn.Module):
    """Reference encoder, tokens, the attention between them, and the way of a style into the encoded text."""

    def __init__(self, hp: NetworkParams) -> None:
        super().__init__()
        self.heads, width, xavier = hp.num_heads, hp.token_embedding_size, hp.xavier_init
        self.reference_encoder = ReferenceEncoder(hp)
        self.tokens = nn.Parameter(torch.empty(hp.token_num, width // self.heads).normal_(std=FIRST_TOKENS_STD))
        self.query = LinearNorm(hp.ref_enc_gru_size, width, bias=False, xavier=xavier)
        self.key = LinearNorm(width // self.heads, width, bias=False, xavier=xavier)
        self.value = LinearNorm(width // self.heads, width, bias=False, xavier=xavier)
        self.projection = LinearNorm(width, hp.encoder_embedding_dim, bias=False, xavier=xavier)

    def weights(self, mel: Tensor, mel_lengths: Tensor) -> Tensor:
        """How much of each token is in recordings: mel [B, n_mels, T_mel], mel_lengths [B] -> [B, heads, tokens]"""
        query = self._by_head(self.query(self.reference_encoder(mel, mel_lengths)))  # [B, heads, S / heads]
        key = self._by_head(self.key(torch.tanh(self.tokens)))  # [tokens, heads, S / heads]
        energies = torch.einsum("bhs,khs->bhk", query, key).float() / sqrt(key.size(2))
        return torch.softmax(energies, dim=2)

    def embedding(self, weights: Tensor) -> Tensor:
        """The style that weights [B, heads, tokens] select: [B, token_embedding_size]"""
        value = self._by_head(self.value(torch.tanh(self.tokens)))
        return torch.einsum("bhk,khs->bhs", weights.to(value.dtype), value).flatten(1)

    def forward(self, memory: Tensor, text_lengths: Tensor, weights: Tensor) -> Tensor:
        """memory [B, T_text, E] with the style of weights [B, heads, tokens] in it."""
        return add_to_text(memory, self.projection(self.embedding(weights)), text_lengths)

    def single_token_style(self, index: int, weight: float) -> Tensor:
        """A style of one token alone in every head: [1, heads, tokens]"""
        weights = self.tokens.new_zeros(1, self.heads, self.tokens.size(0))
        weights[:, :, index] = weight
        return weights

    def _by_head(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (self.heads, -1))


class StylePredictor(nn.Module):
    """The weights that a text suggests. It listens in: nothing it learns changes the encoder or the tokens."""

    def __init__(self, hp: NetworkParams) -> None:
        super().__init__()
        self.heads = hp.num_heads
        self.gru = nn.GRU(hp.encoder_embedding_dim, PREDICTOR_DIM, batch_first=True)
        self.projection = LinearNorm(PREDICTOR_DIM, hp.num_heads * hp.token_num, xavier=hp.xavier_init)

    def forward(self, memory: Tensor, text_lengths: Tensor) -> Tensor:
        """memory [B, T_text, E] without style -> logarithms of the weights [B, heads, tokens]"""
        logits = self.projection(last_state(self.gru(memory.detach())[0], text_lengths)).float()
        return torch.log_softmax(logits.unflatten(1, (self.heads, -1)), dim=2)


def last_state(states: Tensor, lengths: Tensor) -> Tensor:
    """states [B, T, D], lengths [B] -> the state at the end of each sequence, [B, D]"""
    ends = (lengths - 1)[:, None, None].expand(-1, 1, states.size(2))
    return states.gather(1, ends).squeeze(1)
