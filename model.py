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

from gst import Style, StylePredictor, StyleTokens
from hparams import HParams, ModelParams, StyleParams
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
from mmi import Recogniser
from speakers import SpeakerEmbedding

GATE_OF_PADDING = 1e3  # a logit that says "stop" without doubt; its cross-entropy against 1 is 0


@dataclass(frozen=True)
class Coarse:
    """What the second decoder of double decoder consistency predicts, in its own, longer steps."""

    mel: Tensor  # [B, n_mels, T_mel]
    gate_logits: Tensor  # [B, T_mel / ddc_reduction_factor]
    alignments: Tensor  # [B, T_mel / ddc_reduction_factor, T_text]


@dataclass(frozen=True)
class Outputs:
    """What one teacher-forced pass predicts."""

    mel: Tensor  # [B, n_mels, T_mel] before the postnet
    mel_post: Tensor  # [B, n_mels, T_mel]
    gate_logits: Tensor  # [B, T_dec]
    alignments: Tensor  # [B, T_dec, T_text]
    style: Style | None = None  # with style tokens
    coarse: Coarse | None = None  # with use_ddc_loss
    recognised: Tensor | None = None  # with use_mmi: [T_dec, B, n_symbols + 1] log-probabilities, blank last


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


@dataclass
class AttentionState:
    """What the attention loop carries from step to step."""

    hidden: Tensor  # [B, D]
    cell: Tensor  # [B, D]
    context: Tensor  # [B, E]
    weights: Tensor  # [B, 2, T_text] of the last step, and summed over all steps


@dataclass(frozen=True)
class Memory:
    """The encoded text as attention reads it."""

    values: Tensor  # [B, T_text, E]
    keys: Tensor  # [B, T_text, A]
    padding: Tensor  # [B, T_text]


class Decoder(nn.Module):
    """Attention LSTM, location-sensitive attention, decoder LSTM; r frames and one stop logit a step."""

    def __init__(self, hp: ModelParams) -> None:
        super().__init__()
        self.n_mels, self.r = hp.n_mel_channels, hp.n_frames_per_step
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
        )
        self.decoder_rnn = nn.LSTMCell(hp.attention_rnn_dim + memory_dim, hp.decoder_rnn_dim)
        features = hp.decoder_rnn_dim + memory_dim
        self.linear_projection = LinearNorm(features, self.n_mels * self.r, xavier=xavier)
        self.gate_layer = LinearNorm(features, 1, gain="sigmoid", xavier=xavier)

    def attend(self, memory: Tensor, text_lengths: Tensor) -> Memory:
        keys = self.attention_layer.memory_layer(memory)
        return Memory(values=memory, keys=keys, padding=padding_mask(text_lengths, memory.size(1)))

    def first_state(self, memory: Tensor) -> AttentionState:
        B, T_text, E = memory.shape
        D = self.attention_rnn.hidden_size
        return AttentionState(
            memory.new_zeros(B, D), memory.new_zeros(B, D), memory.new_zeros(B, E), memory.new_zeros(B, 2, T_text)
        )

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

    def forward(self, memory: Tensor, mel: Tensor, text_lengths: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Teacher-forced.

        memory [B, T_text, E], mel [B, n_mels, T_mel], T_mel a multiple of r
        ->  mel [B, n_mels, T_mel], gate logits [B, T_dec], alignments [B, T_dec, T_text],
            features [T_dec, B, D + E] that both projections read.
        """
        prenet_out = self.prenet(self.teacher_frames(mel))  # [T_dec, B, prenet_dim]
        T_dec, B, _ = prenet_out.shape
        p_attention = self.p_attention_dropout if self.training else 0.0
        p_decoder = self.p_decoder_dropout if self.training else 0.0
        masks = (
            dropout_mask((T_dec, B, self.attention_rnn.hidden_size), p_attention, like=prenet_out),
            dropout_mask((T_dec, B, self.decoder_rnn.hidden_size), p_decoder, like=prenet_out),
        )
        features, alignments = self.run_teacher_forced(prenet_out, self.attend(memory, text_lengths), masks)
        mel_out = self.frames_of(self.linear_projection(features))
        return mel_out, self.gate_layer(features).squeeze(2).t(), alignments.transpose(0, 1), features

    def run_teacher_forced(
        self, prenet_out: Tensor, memory: Memory, masks: tuple[Tensor | None, Tensor | None]
    ) -> tuple[Tensor, Tensor]:
        """-> features [T_dec, B, D + E] that both projections read, alignments [T_dec, B, T_text].

        Two loops that agree (tests/test_kernels.py): the definition below, and a fast one with a backward of its own.
        """
        if self.backend == "plain":
            return self.plain_teacher_forced(prenet_out, memory, masks)
        device = prenet_out.device.type
        mixed = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        return fast_teacher_forced(self, prenet_out, memory, masks, compute_dtype=mixed)

    def plain_teacher_forced(
        self, prenet_out: Tensor, memory: Memory, masks: tuple[Tensor | None, Tensor | None]
    ) -> tuple[Tensor, Tensor]:
        """The definition: one step after the other, gradients by autograd.

        The decoder LSTM feeds nothing back into attention, so it runs after the attention loop.
        """
        attention_mask, decoder_mask = masks
        state, states = self.first_state(memory.values), []
        for t, frame in enumerate(prenet_out):
            state = self.attention_step(frame, state, memory, None if attention_mask is None else attention_mask[t])
            states.append(state)
        inputs = torch.stack([torch.cat((s.hidden, s.context), 1) for s in states])  # [T_dec, B, D + E]
        hidden = cell = inputs.new_zeros(inputs.size(1), self.decoder_rnn.hidden_size)
        outputs = []
        for t, x in enumerate(inputs):
            hidden, cell = self.decoder_rnn(x, (hidden, cell))
            hidden = hidden if decoder_mask is None else hidden * decoder_mask[t]
            outputs.append(hidden)
        contexts = torch.stack([s.context for s in states])
        alignments = torch.stack([s.weights[:, 0] for s in states])  # [T_dec, B, T_text]
        return torch.cat((torch.stack(outputs), contexts), 2), alignments

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
            frame = self.linear_projection(features[-1])[:, -self.n_mels :]
            watch.observe(torch.sigmoid(self.gate_layer(features[-1]).squeeze(1)), weights[-1])
        stacked = torch.stack(features)  # [T_dec, B, D + E]
        gates = torch.sigmoid(self.gate_layer(stacked)).squeeze(2).t()  # [B, T_dec]
        return self.frames_of(self.linear_projection(stacked)), gates, torch.stack(weights, 1), watch


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
    """Text to standardised mel. Keys and shapes of the default are NVIDIA's: 84 tensors, 28,193,153 parameters.

    Speakers and style tokens add tensors under their own prefixes and change no shape.
    """

    def __init__(self, hp: StyleParams, n_speakers: int = 0) -> None:
        super().__init__()
        self.mask_padding = hp.mask_padding
        self.r = hp.n_frames_per_step
        self.embedding = nn.Embedding(hp.n_symbols, hp.symbols_embedding_dim)
        if hp.xavier_init:
            bound = sqrt(3.0) * sqrt(2.0 / (hp.n_symbols + hp.symbols_embedding_dim))
            nn.init.uniform_(self.embedding.weight, -bound, bound)
        self.encoder = Encoder(hp)
        self.decoder = Decoder(hp)
        self.postnet = Postnet(hp)
        # made after all that the default has, whose weights must not depend on them; parts for training only are last
        self.speaker_embedding = SpeakerEmbedding(n_speakers, hp) if n_speakers else None
        self.gst = StyleTokens(hp) if hp.use_gst else None
        self.tpgst = StylePredictor(hp) if hp.use_gst else None
        features = self.decoder.linear_projection.linear_layer.in_features
        coarse = hp.model_copy(update={"n_frames_per_step": hp.ddc_reduction_factor})
        self.coarse_decoder = Decoder(coarse) if hp.use_ddc_loss else None
        self.mmi = Recogniser(features, hp) if hp.use_mmi else None

    def encode(self, text: Tensor, text_lengths: Tensor, *, speakers: Tensor | None = None) -> Tensor:
        """text [B, T_text] ids, speakers [B] rows -> memory [B, T_text, E], not yet styled"""
        memory = self.encoder(self.embedding(text).transpose(1, 2), text_lengths)
        if self.speaker_embedding is None:
            return memory
        assert speakers is not None, "a model of several speakers must be told whose voice it is"
        return self.speaker_embedding(memory, text_lengths, speakers)

    def in_style(
        self,
        memory: Tensor,
        text_lengths: Tensor,
        *,
        style: Tensor | None = None,
        recordings: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Style | None]:
        """memory [B, T_text, E] in a style: as given [B, heads, tokens], else of recordings, else as the text suggests.

        recordings: mel [B, n_mels, T_mel] and mel_lengths [B]. Without style tokens the memory stays as it is.
        """
        if self.gst is None or self.tpgst is None:
            return memory, None
        predicted = self.tpgst(memory, text_lengths)
        if style is None:
            style = predicted.exp() if recordings is None else self.gst.weights(*recordings)
        return self.gst(memory, text_lengths, style), Style(style, predicted)

    def forward(
        self,
        text: Tensor,
        text_lengths: Tensor,
        mel: Tensor,
        mel_lengths: Tensor,
        *,
        speakers: Tensor | None = None,
        style: Tensor | None = None,
        teacher: Tensor | None = None,
    ) -> Outputs:
        """Teacher-forced pass, in the style of the mel itself unless `style` gives another.

        text [B, T_text], text_lengths [B], mel [B, n_mels, T_mel] with T_mel a multiple of r, mel_lengths [B],
        speakers [B], style [B, heads, tokens], teacher [B, n_mels, T_mel] what the decoder is shown in place of the
        mel. With `mask_padding`, outputs behind each utterance are 0 (mels) and "stop" (gate).
        """
        memory = self.encode(text, text_lengths, speakers=speakers)
        memory, styled = self.in_style(memory, text_lengths, style=style, recordings=(mel, mel_lengths))
        teacher = mel if teacher is None else teacher
        decoded, gate_logits, alignments, features = self.decoder(memory, teacher, text_lengths)
        decoded, gate_logits = at_least_float32(decoded), at_least_float32(gate_logits)
        refined = decoded + at_least_float32(self.postnet(decoded))
        if self.mask_padding:
            steps = decoder_steps(mel_lengths, self.r)
            behind_gate = padding_mask(steps, gate_logits.size(1))
            behind_mel = behind_gate.repeat_interleave(self.r, 1).unsqueeze(1)  # [B, 1, T_mel]
            decoded, refined = decoded.masked_fill(behind_mel, 0.0), refined.masked_fill(behind_mel, 0.0)
            gate_logits = gate_logits.masked_fill(behind_gate, GATE_OF_PADDING)
        coarse = self.teach_coarse(memory, teacher, text_lengths)
        recognised = None if self.mmi is None else self.mmi(features)
        return Outputs(decoded, refined, gate_logits, alignments, styled, coarse, recognised)

    def teach_coarse(self, memory: Tensor, mel: Tensor, text_lengths: Tensor) -> Coarse | None:
        """The coarse decoder beside the fine one, on the same text; the encoder learns nothing from it."""
        if self.coarse_decoder is None:
            return None
        assert mel.size(2) % self.coarse_decoder.r == 0, f"T_mel={mel.size(2)} is no multiple of ddc_reduction_factor"
        decoded, gate_logits, alignments, _ = self.coarse_decoder(memory.detach(), mel, text_lengths)
        return Coarse(at_least_float32(decoded), at_least_float32(gate_logits), alignments)

    @torch.no_grad()
    def infer(
        self,
        text: Tensor,
        text_lengths: Tensor,
        limits: DecodeLimits,
        *,
        generator: torch.Generator | None = None,
        speakers: Tensor | None = None,
        style: Tensor | None = None,
    ) -> list[Decoded]:
        """Speaks: text [B, T_text], text_lengths [B] -> one `Decoded` an utterance, cut where it stopped.

        `generator` draws the prenet's dropout, which stays on. The model should be in eval mode. speakers [B]; without
        `style` [B, heads, tokens], the text decides it.
        """
        memory = self.encode(text, text_lengths, speakers=speakers)
        memory, _ = self.in_style(memory, text_lengths, style=style)
        mel, gates, alignments, watch = self.decoder.infer(memory, text_lengths, limits, generator)
        spoken = []
        for i, (steps, symbols) in enumerate(zip(watch.n_steps.tolist(), text_lengths.tolist(), strict=True)):
            own = mel[i : i + 1, :, : steps * self.r]
            refined = (own + self.postnet(own))[0]
            spoken.append(Decoded(refined, gates[i, :steps], alignments[i, :steps, :symbols], watch.reasons[i]))
        return spoken


def without_training_parts(hp: HParams) -> HParams:
    """For a model that only speaks: without recogniser and coarse decoder."""
    return hp.model_copy(update={"use_mmi": False, "use_ddc_loss": False})


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


__all__ = [
    "Coarse", "DecodeLimits", "Decoded", "Outputs", "Tacotron2", "decoder_steps", "pad_texts", "without_training_parts",
]  # fmt: skip
