"""Tacotron 2 (arXiv 1712.05884) with the layout and the maths of NVIDIA/tacotron2.

`Tacotron2(hp)` teacher-forced gives `Outputs`; `Tacotron2.infer` speaks on its own and says why it stopped.
The model works on standardised mels; whoever calls it owns mean and deviation.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from attention import Memory, Normalisation
from decoder_loops import (
    AttentionState,
    partly_taught_loop,
    plain_loop,
    plain_reasons,
    say_fast_loop_recomputes,
    warn_of_plain_loop,
)
from hparams import ModelParams
from kernels.teacher_forced import fast_teacher_forced
from layers import (
    Attention,
    Gain,
    LinearNorm,
    Prenet,
    at_least_float32,
    conv_block,
    dropout_mask,
    padding_mask,
)  # fmt: skip
from metrics import StopReason
from recompute import chunk_of
from reduction import Reduction

GATE_OF_PADDING = 1e3  # a logit that says "stop" without doubt; its cross-entropy against 1 is 0


@dataclass(frozen=True)
class Outputs:
    """What one teacher-forced pass predicts."""

    mel: Tensor  # [B, n_mels, T_mel] before the postnet
    mel_post: Tensor  # [B, n_mels, T_mel]
    gate_logits: Tensor  # [B, T_dec]
    alignments: Tensor  # [B, T_dec, T_text]


@dataclass(frozen=True)
class DecodeLimits:
    """When free-running decoding ends other than by the gate. Frames, not decoder steps."""

    max_frames: int  # for any text
    gate_threshold: float = 0.5
    frames_per_symbol: float = 10.0  # budget of a text: budget_offset + frames_per_symbol * its symbols
    budget_offset: int = 30
    dwell_frames: int = 60  # so long on the last symbol means the text is spoken and the gate missed it

    def budget(self, text_lengths: Tensor) -> Tensor:
        """Most frames for each text: [B] -> [B]."""
        by_text = self.budget_offset + self.frames_per_symbol * text_lengths
        return by_text.ceil().long().clamp(max=self.max_frames)


@dataclass(frozen=True)
class Decoded:
    """One utterance spoken without a teacher."""

    mel: Tensor  # [n_mels, T_mel] standardised, after the postnet
    gate: Tensor  # [T_dec] stop probability
    alignment: Tensor  # [T_dec, T_text]
    stop_reason: StopReason


class Encoder(nn.Module):
    """Convolutions with batch normalisation, then a bidirectional LSTM."""

    def __init__(self, hp: ModelParams) -> None:
        super().__init__()
        self.dropout = hp.encoder_dropout_rate
        widths = [hp.symbols_embedding_dim] + [hp.encoder_embedding_dim] * hp.encoder_n_convolutions
        self.convolutions = nn.ModuleList(
            conv_block(a, b, hp.encoder_kernel_size, gain="relu", xavier=hp.xavier_init)
            for a, b in zip(widths, widths[1:], strict=False)
        )
        self.lstm = nn.LSTM(widths[-1], hp.encoder_embedding_dim // 2, batch_first=True, bidirectional=True)

    def forward(self, embedded: Tensor, text_lengths: Tensor) -> Tensor:
        """embedded [B, symbols_embedding_dim, T_text] -> memory [B, T_text, E], zeros behind each text."""
        x = embedded
        for convolution in self.convolutions:
            x = F.dropout(F.relu(convolution(x)), self.dropout, self.training)  # [B, E, T_text]
        packed = pack_padded_sequence(x.transpose(1, 2), text_lengths.cpu(), batch_first=True, enforce_sorted=False)
        states, _ = self.lstm(packed)
        return pad_packed_sequence(states, batch_first=True, total_length=embedded.size(2))[0]  # [B, T_text, E]


class Postnet(nn.Module):
    """Convolutions that predict what the decoder's mel still lacks."""

    def __init__(self, hp: ModelParams) -> None:
        super().__init__()
        self.dropout = hp.postnet_dropout_rate
        n = hp.postnet_n_convolutions
        widths = [hp.n_mel_channels] + [hp.postnet_embedding_dim] * (n - 1) + [hp.n_mel_channels]
        inner: Gain = "tanh"
        gains: list[Gain] = [inner] * (n - 1) + ["linear"]
        self.convolutions = nn.ModuleList(
            conv_block(a, b, hp.postnet_kernel_size, gain=gain, xavier=hp.xavier_init)
            for a, b, gain in zip(widths, widths[1:], gains, strict=False)
        )

    def forward(self, mel: Tensor) -> Tensor:
        x, last = mel, len(self.convolutions) - 1
        for i, convolution in enumerate(self.convolutions):
            x = convolution(x)
            x = x if i == last else torch.tanh(x)
            x = F.dropout(x, self.dropout, self.training)
        return x  # [B, n_mels, T_mel]


class Decoder(nn.Module):
    """Attention LSTM, location-sensitive attention, decoder LSTM; r frames and one stop logit a step."""

    def __init__(self, hp: ModelParams) -> None:
        super().__init__()
        reduction = Reduction.of(hp.reduction_schedule, hp.n_frames_per_step)
        self.n_mels, self.r, self.largest_r = hp.n_mel_channels, reduction.at(0), reduction.largest
        self.p_attention_dropout, self.p_decoder_dropout = hp.p_attention_dropout, hp.p_decoder_dropout
        self.backend = hp.decoder_backend
        memory_dim, xavier = hp.encoder_embedding_dim, hp.xavier_init
        self.prenet = Prenet(self.n_mels, hp.prenet_dim, dropout=hp.dropout_rate, xavier=xavier)
        self.attention_rnn = nn.LSTMCell(hp.prenet_dim + memory_dim, hp.attention_rnn_dim)
        self.attention_layer = Attention(
            hp.attention_rnn_dim,
            memory_dim,
            hp.attention_dim,
            hp.attention_location_n_filters,
            hp.attention_location_kernel_size,
            xavier=xavier,
            use_location=hp.use_location_sensitive_attention,
            normalise=Normalisation(
                smoothing=hp.attention_smoothing_factor if hp.use_attention_smoothing else 0.0,
                is_forward=hp.use_forward_attention,
            ),
        )
        self.decoder_rnn = nn.LSTMCell(hp.attention_rnn_dim + memory_dim, hp.decoder_rnn_dim)
        features = hp.decoder_rnn_dim + memory_dim
        self.linear_projection = LinearNorm(features, self.n_mels * self.largest_r, xavier=xavier)
        self.gate_layer = LinearNorm(features, 1, gain="sigmoid", xavier=xavier)
        self.recomputes, self.chunk_size = hp.use_memory_efficient_attention, hp.attention_chunk_size
        self.only_plain = plain_reasons(hp)

    def attend(self, memory: Tensor, text_lengths: Tensor) -> Memory:
        keys = self.attention_layer.memory_layer(memory)
        return Memory(values=memory, keys=keys, padding=padding_mask(text_lengths, memory.size(1)))

    def first_state(self, memory: Tensor) -> AttentionState:
        B, T_text, E = memory.shape
        D = self.attention_rnn.hidden_size
        weights = self.attention_layer.normalise.first_weights(memory.new_zeros(B, 2, T_text))
        return AttentionState(memory.new_zeros(B, D), memory.new_zeros(B, D), memory.new_zeros(B, E), weights)

    def attention_step(
        self, prenet_out: Tensor, state: AttentionState, memory: Memory, hidden_mask: Tensor | None
    ) -> AttentionState:
        """prenet_out [B, prenet_dim] -> the next state. Dropout acts on the hidden state that is fed back."""
        hidden, cell = self.attention_rnn(torch.cat((prenet_out, state.context), 1), (state.hidden, state.cell))
        hidden = hidden if hidden_mask is None else hidden * hidden_mask
        context, weights = self.attention_layer(hidden, memory.values, memory.keys, state.weights, memory.padding)
        summed = state.weights[:, 1] + weights
        return AttentionState(hidden, cell, context, torch.stack((weights, summed), 1))

    def teacher_frames(self, mel: Tensor) -> Tensor:
        """The frame each step is shown: the last one of the group before it, zeros first. -> [T_dec, B, n_mels]"""
        last_of_group = mel[:, :, self.r - 1 :: self.r].permute(2, 0, 1)  # [T_dec, B, n_mels]
        return torch.cat((torch.zeros_like(last_of_group[:1]), last_of_group[:-1]))

    def project(self, features: Tensor) -> Tensor:
        """[..., D + E] -> [..., r * n_mels]: the first outputs of the projection, which is sized for the largest r."""
        if self.r == self.largest_r:
            return self.linear_projection(features)
        layer, n = self.linear_projection.linear_layer, self.r * self.n_mels
        return F.linear(features, layer.weight[:n], layer.bias[:n])

    def forward(
        self, memory: Tensor, mel: Tensor, text_lengths: Tensor, *, p_teacher: float = 1.0
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Teacher-forced; each step of each utterance hears the recording with chance p_teacher, else its own frame.

        memory [B, T_text, E], mel [B, n_mels, T_mel], T_mel a multiple of r
        ->  mel [B, n_mels, T_mel], gate logits [B, T_dec], alignments [B, T_dec, T_text].
        """
        frames, attended = self.teacher_frames(mel), self.attend(memory, text_lengths)
        if p_teacher < 1.0:
            features, alignments = self.partly_forced(frames, attended, p_teacher)
        else:
            features, alignments = self.fully_forced(frames, attended)
        mel_out = self.frames_of(self.project(features))
        return mel_out, self.gate_layer(features).squeeze(2).t(), alignments.transpose(0, 1)

    def hidden_masks(self, frames: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Dropout of both LSTMs' hidden states, [T_dec, B, D] each."""
        T_dec, B, _ = frames.shape
        p_attention = self.p_attention_dropout if self.training else 0.0
        p_decoder = self.p_decoder_dropout if self.training else 0.0
        return (
            dropout_mask((T_dec, B, self.attention_rnn.hidden_size), p_attention, like=frames),
            dropout_mask((T_dec, B, self.decoder_rnn.hidden_size), p_decoder, like=frames),
        )

    def fully_forced(self, frames: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """frames [T_dec, B, n_mels] -> features [T_dec, B, D + E] that both projections read, alignments as in loops.

        Two loops that agree (tests/test_kernels.py): the definition below, and a fast one with a backward of its own.
        """
        prenet_out = self.prenet(frames)  # [T_dec, B, prenet_dim]
        masks = self.hidden_masks(prenet_out)
        if self.backend == "plain" or self.only_plain:
            self.say_why_plain(self.only_plain)
            return self.plain_teacher_forced(prenet_out, memory, masks)
        if self.recomputes:
            say_fast_loop_recomputes()
        device = prenet_out.device.type
        mixed = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        return fast_teacher_forced(self, prenet_out, memory, masks, compute_dtype=mixed)

    def plain_teacher_forced(
        self, prenet_out: Tensor, memory: Memory, masks: tuple[Tensor | None, Tensor | None]
    ) -> tuple[Tensor, Tensor]:
        """The definition: one step after the other, gradients by autograd."""
        return plain_loop(self, prenet_out, memory, masks, chunk=self.chunk(prenet_out.size(0)))

    def partly_forced(self, frames: Tensor, memory: Memory, p_teacher: float) -> tuple[Tensor, Tensor]:
        """As `fully_forced`, but each step of each utterance hears its own frame with chance 1 - p_teacher."""
        self.say_why_plain((*self.only_plain, "p_teacher_forcing under 1"))
        masks = self.hidden_masks(frames)
        is_taught = torch.rand(*frames.shape[:2], 1, device=frames.device) < p_teacher
        return partly_taught_loop(self, frames, memory, masks, is_taught, chunk=self.chunk(frames.size(0)))

    def chunk(self, n_steps: int) -> int | None:
        return chunk_of(n_steps, self.chunk_size) if self.recomputes else None

    def say_why_plain(self, reasons: tuple[str, ...]) -> None:
        if self.backend != "plain" and self.training:
            warn_of_plain_loop(reasons)

    def frames_of(self, projected: Tensor) -> Tensor:
        """[T_dec, B, r * n_mels] -> [B, n_mels, T_dec * r]"""
        T_dec, B, _ = projected.shape
        return projected.view(T_dec, B, self.r, self.n_mels).permute(1, 3, 0, 2).reshape(B, self.n_mels, T_dec * self.r)

    def infer(
        self, memory: Tensor, text_lengths: Tensor, limits: DecodeLimits, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Tensor, "StopWatch"]:
        """Feeds its own frames back until every text has stopped. Shapes as `forward`."""
        attended, state = self.attend(memory, text_lengths), self.first_state(memory)
        hidden = cell = memory.new_zeros(memory.size(0), self.decoder_rnn.hidden_size)
        frame = memory.new_zeros(memory.size(0), self.n_mels)
        watch = StopWatch(text_lengths, limits, self.r)
        features, weights = [], []
        while not watch.all_stopped:
            state = self.attention_step(self.prenet(frame, generator), state, attended, None)
            hidden, cell = self.decoder_rnn(torch.cat((state.hidden, state.context), 1), (hidden, cell))
            features.append(torch.cat((hidden, state.context), 1))
            weights.append(state.weights[:, 0])
            frame = self.project(features[-1])[:, -self.n_mels :]
            watch.observe(torch.sigmoid(self.gate_layer(features[-1]).squeeze(1)), weights[-1])
        stacked = torch.stack(features)  # [T_dec, B, D + E]
        gates = torch.sigmoid(self.gate_layer(stacked)).squeeze(2).t()  # [B, T_dec]
        return self.frames_of(self.project(stacked)), gates, torch.stack(weights, 1), watch


class StopWatch:
    """Decides for every utterance of a batch when it has stopped, and why.

    The gate says so; or attention has stayed on the last symbol for `dwell_frames`; or the text's own length
    budget or the limit for any text is used up. Only the first reason counts.
    """

    def __init__(self, text_lengths: Tensor, limits: DecodeLimits, r: int) -> None:
        self.limits, self.r, self.step = limits, r, 0
        self.last_symbol = text_lengths - 1
        self.budget = limits.budget(text_lengths)
        self.dwell = torch.zeros_like(text_lengths)
        self.n_steps = torch.zeros_like(text_lengths)  # 0 = still speaking
        self.reasons: list[StopReason] = ["limit"] * len(text_lengths)

    @property
    def all_stopped(self) -> bool:
        return bool((self.n_steps > 0).all())

    def observe(self, gate: Tensor, weights: Tensor) -> None:
        """gate [B] stop probability, weights [B, T_text] of the step just taken."""
        self.step += 1
        on_last = weights.argmax(1) == self.last_symbol
        self.dwell = torch.where(on_last, self.dwell + self.r, 0)
        # Said early while attention is still in the text's first half, "stop" is a mistake; NVIDIA obeys it too.
        self._stop(gate > self.limits.gate_threshold, "gate", self.step)
        self._stop(self.dwell >= self.limits.dwell_frames, "dwell", self.step)
        frames = self.step * self.r
        over = frames >= self.budget
        self._stop(over & (self.budget < self.limits.max_frames), "budget", self.step)
        self._stop(over, "limit", self.step)

    def _stop(self, now: Tensor, reason: StopReason, n_steps: int) -> None:
        fresh = now & (self.n_steps == 0)
        self.n_steps = torch.where(fresh, n_steps, self.n_steps)
        for i in fresh.nonzero().flatten().tolist():
            self.reasons[i] = reason


class Tacotron2(nn.Module):
    """Text to standardised mel. Keys and shapes of the default are NVIDIA's: 84 tensors, 28,193,153 parameters."""

    def __init__(self, hp: ModelParams) -> None:
        super().__init__()
        self.mask_padding = hp.mask_padding
        self.embedding = nn.Embedding(hp.n_symbols, hp.symbols_embedding_dim)
        if hp.xavier_init:
            bound = sqrt(3.0) * sqrt(2.0 / (hp.n_symbols + hp.symbols_embedding_dim))
            nn.init.uniform_(self.embedding.weight, -bound, bound)
        self.encoder = Encoder(hp)
        self.decoder = Decoder(hp)
        self.postnet = Postnet(hp)

    @property
    def r(self) -> int:
        """Frames per decoder step, now; `reduction_schedule` moves it between optimiser steps."""
        return self.decoder.r

    @r.setter
    def r(self, r: int) -> None:
        assert 1 <= r <= self.decoder.largest_r, f"r={r}, and the projection is sized for {self.decoder.largest_r}"
        self.decoder.r = r

    def encode(self, text: Tensor, text_lengths: Tensor) -> Tensor:
        """text [B, T_text] ids -> memory [B, T_text, E]"""
        return self.encoder(self.embedding(text).transpose(1, 2), text_lengths)

    def forward(
        self, text: Tensor, text_lengths: Tensor, mel: Tensor, mel_lengths: Tensor, *, p_teacher: float = 1.0
    ) -> Outputs:
        """Teacher-forced pass; p_teacher: the share of steps that are shown the recording and not their own frame.

        text [B, T_text], text_lengths [B], mel [B, n_mels, T_mel] with T_mel a multiple of r, mel_lengths [B].
        With `mask_padding`, outputs behind each utterance are 0 (mels) and "stop" (gate).
        """
        memory = self.encode(text, text_lengths)
        decoded, gate_logits, alignments = self.decoder(memory, mel, text_lengths, p_teacher=p_teacher)
        decoded, gate_logits = at_least_float32(decoded), at_least_float32(gate_logits)
        refined = decoded + at_least_float32(self.postnet(decoded))
        if self.mask_padding:
            steps = decoder_steps(mel_lengths, self.r)
            behind_gate = padding_mask(steps, gate_logits.size(1))
            behind_mel = behind_gate.repeat_interleave(self.r, 1).unsqueeze(1)  # [B, 1, T_mel]
            decoded, refined = decoded.masked_fill(behind_mel, 0.0), refined.masked_fill(behind_mel, 0.0)
            gate_logits = gate_logits.masked_fill(behind_gate, GATE_OF_PADDING)
        return Outputs(decoded, refined, gate_logits, alignments)

    @torch.no_grad()
    def infer(
        self, text: Tensor, text_lengths: Tensor, limits: DecodeLimits, *, generator: torch.Generator | None = None
    ) -> list[Decoded]:
        """Speaks: text [B, T_text], text_lengths [B] -> one `Decoded` an utterance, cut where it stopped.

        `generator` draws the prenet's dropout, which stays on. The model should be in eval mode.
        """
        memory = self.encode(text, text_lengths)
        mel, gates, alignments, watch = self.decoder.infer(memory, text_lengths, limits, generator)
        spoken = []
        for i, (steps, symbols) in enumerate(zip(watch.n_steps.tolist(), text_lengths.tolist(), strict=True)):
            own = mel[i : i + 1, :, : steps * self.r]
            refined = (own + self.postnet(own))[0]
            spoken.append(Decoded(refined, gates[i, :steps], alignments[i, :steps, :symbols], watch.reasons[i]))
        return spoken


def decoder_steps(mel_lengths: Tensor, r: int) -> Tensor:
    """Steps that cover so many frames: ceil(length / r)."""
    return (mel_lengths + r - 1) // r


def pad_texts(sequences: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Ids of several texts -> text [B, T_text] padded with 0, text_lengths [B]."""
    lengths = torch.tensor([len(s) for s in sequences])
    text = torch.zeros(len(sequences), int(lengths.max()), dtype=torch.long)
    for row, sequence in zip(text, sequences, strict=True):
        row[: len(sequence)] = torch.tensor(sequence)
    return text, lengths


__all__ = ["DecodeLimits", "Decoded", "Outputs", "Tacotron2", "decoder_steps", "pad_texts"]
