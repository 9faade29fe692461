"""Tacotron 2 (arXiv 1712.05884) with the layout and the maths of NVIDIA/tacotron2.

`Tacotron2(hp)` teacher-forced gives `Outputs`; `Tacotron2.infer` speaks on its own and says why it stopped.
The model works on standardised mels; whoever calls it owns mean and deviation.
"""

from collections.abc import Sequence
from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

from common.step_schedule import Reduction
from hparams import HParams, ModelParams, NetworkParams
from kernels.backend import inference_weights_of
from kernels.chunked_steps import STEPS_RECORDED
from kernels.encoder_lstm import bidirectional_lstm, library_lstm, loop_lstm
from kernels.host_sync import is_gpu
from kernels.inference import InferenceWeights, fast_inference_loop
from kernels.packed_weights import InferencePrecision
from kernels.teacher_forced import fast_teacher_forced
from layers import (
    AlignmentFunction,
    Attention,
    Gain,
    LinearNorm,
    Memory,
    Prenet,
    activation_dropout,
    at_least_float32,
    conv_block,
    dropout_mask,
    padding_mask,
)  # fmt: skip
from modules.activation_checkpointing import checkpoint_chunk_size
from modules.decoder_loops import (
    AttentionState,
    inference_loop,
    log_fast_loop_recomputes,
    plain_loop,
    plain_reasons,
    scheduled_sampling_loop,
    warn_of_plain_loop,
)
from modules.mmi_recognizer import Recognizer
from modules.outputs import CoarseOutputs, Decoded, Outputs
from modules.speaker_embedding import SpeakerEmbedding
from modules.stopping import DecodeLimits, StopTracker
from modules.style_tokens import Style, StylePredictor, StyleTokens

GATE_OF_PADDING = 1e3  # a logit that says "stop" without doubt; its cross-entropy against 1 is 0


def compute_dtype(device: torch.device) -> torch.dtype | None:
    """The type of products under autocast; None outside."""
    return torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None


class Encoder(nn.Module):
    """Convolutions with batch normalisation, then a bidirectional LSTM."""

    def __init__(self, hp: ModelParams) -> None:
        super().__init__()
        self.dropout, self.backend = hp.encoder_dropout_rate, hp.decoder_backend
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
            rate = self.dropout if self.training else 0.0
            x = activation_dropout(convolution(x), rate, activation="relu")  # [B, E, T_text]
        return self._lstm(x.transpose(1, 2), text_lengths)

    def _lstm(self, x: Tensor, text_lengths: Tensor) -> Tensor:
        """x [B, T_text, E] -> [B, T_text, E]; three equal ways.

        Packed texts are the definition, and quickest on a CPU without gradients. On a GPU packing would wait for the
        lengths; on a CPU its backward pass is hundreds of small steps, where the own loop has one.
        """
        if self.backend == "plain" or not (torch.is_grad_enabled() or is_gpu(x.device)):
            packed = pack_padded_sequence(x, text_lengths.cpu(), batch_first=True, enforce_sorted=False)
            return pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=x.size(1))[0]
        own_loop = loop_lstm(compute_dtype=compute_dtype(x.device), is_native=self.backend != "fast")
        run = library_lstm if is_gpu(x.device) else own_loop
        return at_least_float32(bidirectional_lstm(self.lstm, x, text_lengths, run))


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
        """mel [B, n_mels, T_mel] -> what to add to it, [B, n_mels, T_mel]"""
        x, rate = mel, self.dropout if self.training else 0.0
        *inner, last = self.convolutions
        for convolution in inner:
            x = activation_dropout(convolution(x), rate, activation="tanh")
        return F.dropout(last(x), rate)  # [B, n_mels, T_mel]


class Decoder(nn.Module):
    """Attention LSTM, location-sensitive attention, decoder LSTM; r frames and one stop logit a step."""

    def __init__(self, hp: ModelParams) -> None:
        super().__init__()
        reduction = Reduction.of(hp.reduction_schedule, hp.n_frames_per_step)
        self.n_mels, self.r, self.largest_r = hp.n_mel_channels, reduction.at(0), reduction.largest
        self.p_attention_dropout, self.p_decoder_dropout = hp.p_attention_dropout, hp.p_decoder_dropout
        self.backend = hp.decoder_backend
        memory_dim, xavier = hp.encoder_embedding_dim, hp.xavier_init
        dropouts = hp.dropout_rate, hp.speaking_dropout_rate
        self.prenet = Prenet(self.n_mels, hp.prenet_dim, dropouts=dropouts, xavier=xavier)
        self.attention_rnn = nn.LSTMCell(hp.prenet_dim + memory_dim, hp.attention_rnn_dim)
        self.attention_layer = Attention(
            hp.attention_rnn_dim,
            memory_dim,
            hp.attention_dim,
            hp.attention_location_n_filters,
            hp.attention_location_kernel_size,
            xavier=xavier,
            use_location=hp.use_location_sensitive_attention,
            normalise=AlignmentFunction(
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
        self.prepared: InferenceWeights | None = None

    def attend(self, memory: Tensor, text_lengths: Tensor) -> Memory:
        """memory [B, T_text, E], text_lengths [B] -> as attention reads it"""
        keys = self.attention_layer.memory_layer(memory)
        return Memory(values=memory, keys=keys, padding=padding_mask(text_lengths, memory.size(1)))

    def first_state(self, memory: Tensor) -> AttentionState:
        """memory [B, T_text, E] -> the state before the first step: zeros, but for forward attention's weights."""
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

    def project(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """[..., D + E] -> frames [..., r * n_mels], gate logits [...]; one product, as both read the same.

        The frames are the first outputs of the projection, which is sized for the largest r.
        """
        layer, gate, n = self.linear_projection.linear_layer, self.gate_layer.linear_layer, self.r * self.n_mels
        weight, bias = torch.cat((layer.weight[:n], gate.weight)), torch.cat((layer.bias[:n], gate.bias))
        both = F.linear(features, weight, bias)
        return both[..., :n], both[..., n]

    def forward(
        self, memory: Tensor, mel: Tensor, text_lengths: Tensor, *, p_teacher: float = 1.0
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Teacher-forced; each step of each utterance reads the recording with chance p_teacher, else its own frame.

        memory [B, T_text, E], mel [B, n_mels, T_mel], T_mel a multiple of r
        ->  mel [B, n_mels, T_mel], gate logits [B, T_dec], alignments [B, T_dec, T_text],
            features [T_dec, B, D + E] that both projections read.
        """
        frames, attended = self.teacher_frames(mel), self.attend(memory, text_lengths)
        if p_teacher < 1.0:
            features, alignments = self.scheduled_sampling(frames, attended, p_teacher)
        else:
            features, alignments = self.teacher_forced(frames, attended)
        projected, gate_logits = self.project(features)
        return self.frames_of(projected), gate_logits.t(), alignments.transpose(0, 1), features

    def hidden_masks(self, frames: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Dropout of both LSTMs' hidden states, [T_dec, B, D] each."""
        T_dec, B, _ = frames.shape
        p_attention = self.p_attention_dropout if self.training else 0.0
        p_decoder = self.p_decoder_dropout if self.training else 0.0
        return (
            dropout_mask((T_dec, B, self.attention_rnn.hidden_size), p_attention, like=frames),
            dropout_mask((T_dec, B, self.decoder_rnn.hidden_size), p_decoder, like=frames),
        )

    def teacher_forced(self, frames: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """frames [T_dec, B, n_mels] -> features [T_dec, B, D + E] that both projections read, alignments as in loops.

        Two loops that agree (tests/kernels/test_teacher_forced.py): the definition below, and a fast one with its own
        backward pass.
        """
        prenet_out = self.prenet(frames)  # [T_dec, B, prenet_dim]
        masks = self.hidden_masks(prenet_out)
        if self.backend == "plain" or self.only_plain:
            self._warn_of_plain_loop(self.only_plain)
            return self.reference_teacher_forced(prenet_out, memory, masks)
        if self.recomputes:
            log_fast_loop_recomputes()
        device, is_auto = prenet_out.device, self.backend != "fast"
        return fast_teacher_forced(
            self, prenet_out, memory, masks, compute_dtype=compute_dtype(device),
            is_native=is_auto and not is_gpu(device), chunk=STEPS_RECORDED if is_auto and is_gpu(device) else None,
        )  # fmt: skip

    def reference_teacher_forced(
        self, prenet_out: Tensor, memory: Memory, masks: tuple[Tensor | None, Tensor | None]
    ) -> tuple[Tensor, Tensor]:
        """By definition: one step after the other, gradients by autograd. Shapes as `plain_loop`.

        prenet_out [T_dec, B, prenet_dim], masks [T_dec, B, D] each or None.
        """
        return plain_loop(self, prenet_out, memory, masks, chunk=self._chunk(prenet_out.size(0)))

    def scheduled_sampling(self, frames: Tensor, memory: Memory, p_teacher: float) -> tuple[Tensor, Tensor]:
        """As `teacher_forced`, frames [T_dec, B, n_mels], but each step of each utterance reads its own frame with
        chance 1 - p_teacher.
        """
        self._warn_of_plain_loop((*self.only_plain, "p_teacher_forcing under 1"))
        masks = self.hidden_masks(frames)
        is_teacher_forced = torch.rand(*frames.shape[:2], 1, device=frames.device) < p_teacher
        chunk = self._chunk(frames.size(0))
        return scheduled_sampling_loop(self, frames, memory, masks, is_teacher_forced, chunk=chunk)

    def _chunk(self, n_steps: int) -> int | None:
        return checkpoint_chunk_size(n_steps, self.chunk_size) if self.recomputes else None

    def _warn_of_plain_loop(self, reasons: tuple[str, ...]) -> None:
        if self.backend != "plain" and self.training:
            warn_of_plain_loop(reasons)

    def frames_of(self, projected: Tensor) -> Tensor:
        """[T_dec, B, r * n_mels] -> [B, n_mels, T_dec * r]"""
        T_dec, B, _ = projected.shape
        return projected.view(T_dec, B, self.r, self.n_mels).permute(1, 3, 0, 2).reshape(B, self.n_mels, T_dec * self.r)

    def infer(
        self, memory: Tensor, text_lengths: Tensor, limits: DecodeLimits, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Tensor, StopTracker]:
        """Free-running: feeds its own frames back until every text has stopped.

        memory [B, T_text, E], text_lengths [B] -> mel [B, n_mels, T_mel], stop probabilities [B, T_dec], alignments [B,
        T_dec, T_text], and where each text stopped.
        """
        attended, tracker = self.attend(memory, text_lengths), StopTracker(text_lengths, limits, self.r)
        if self.backend == "plain":
            decoded = inference_loop(self, attended, tracker, generator)
        else:
            decoded = fast_inference_loop(self, self.inference_weights(len(memory)), attended, tracker, generator)
        gates = torch.sigmoid(decoded.gate_logits).t()  # [B, T_dec]
        return self.frames_of(decoded.projected), gates, decoded.weights.transpose(0, 1), tracker

    def prepare_for_inference(self, precision: InferencePrecision) -> None:
        """Lays out the weights for texts one by one, once for all of them; they must not change any more."""
        self.prepared = inference_weights_of(self, n_rows=1, precision=precision, is_persistent=True)

    def inference_weights(self, n_rows: int) -> InferenceWeights:
        if self.prepared is not None and self.prepared.fits(n_rows, self.r):
            return self.prepared
        return inference_weights_of(self, n_rows=n_rows)


class Tacotron2(nn.Module):
    """Text to standardised mel. Keys and shapes of the default are NVIDIA's: 84 tensors, 28,193,153 parameters.

    Speakers and style tokens add tensors under their own prefixes and change no shape.
    """

    def __init__(self, hp: NetworkParams, n_speakers: int = 0) -> None:
        super().__init__()
        self.mask_padding = hp.mask_padding
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
        self.coarse_decoder = Decoder(coarse_settings(hp)) if hp.use_ddc_loss else None
        self.mmi = Recognizer(features, hp) if hp.use_mmi else None

    @property
    def r(self) -> int:
        """Frames per decoder step, now; `reduction_schedule` moves it between optimiser steps."""
        return self.decoder.r

    @r.setter
    def r(self, r: int) -> None:
        assert 1 <= r <= self.decoder.largest_r, f"r={r}, and the projection is sized for {self.decoder.largest_r}"
        self.decoder.r = r

    def encode(self, text: Tensor, text_lengths: Tensor, *, speakers: Tensor | None = None) -> Tensor:
        """text [B, T_text] ids, speakers [B] rows -> memory [B, T_text, E], not yet styled"""
        memory = self.encoder(self.embedding(text).transpose(1, 2), text_lengths)
        if self.speaker_embedding is None:
            return memory
        assert speakers is not None, "a model of several speakers must be told whose voice it is"
        return self.speaker_embedding(memory, text_lengths, speakers)

    def apply_style(
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
        p_teacher: float = 1.0,
    ) -> Outputs:
        """Teacher-forced pass, in the style of the mel itself unless `style` gives another.

        text [B, T_text], text_lengths [B], mel [B, n_mels, T_mel] with T_mel a multiple of r, mel_lengths [B],
        speakers [B], style [B, heads, tokens], teacher [B, n_mels, T_mel] what the decoder is shown in place of the
        mel, p_teacher the share of steps that are shown it and not their own frame. With `mask_padding`, outputs behind
        each utterance are 0 (mels) and "stop" (gate).
        """
        memory = self.encode(text, text_lengths, speakers=speakers)
        memory, styled = self.apply_style(memory, text_lengths, style=style, recordings=(mel, mel_lengths))
        teacher = mel if teacher is None else teacher
        decoded, gate_logits, alignments, features = self.decoder(memory, teacher, text_lengths, p_teacher=p_teacher)
        decoded, gate_logits = at_least_float32(decoded), at_least_float32(gate_logits)
        refined = decoded + at_least_float32(self.postnet(decoded))
        if self.mask_padding:
            steps = decoder_steps(mel_lengths, self.r)
            is_padded_step = padding_mask(steps, gate_logits.size(1))
            is_padded_frame = is_padded_step.repeat_interleave(self.r, 1).unsqueeze(1)  # [B, 1, T_mel]
            decoded, refined = decoded.masked_fill(is_padded_frame, 0.0), refined.masked_fill(is_padded_frame, 0.0)
            gate_logits = gate_logits.masked_fill(is_padded_step, GATE_OF_PADDING)
        coarse = self.coarse_outputs(memory, teacher, text_lengths, p_teacher)
        ctc_log_probs = None if self.mmi is None else self.mmi(features)
        return Outputs(decoded, refined, gate_logits, alignments, styled, coarse, ctc_log_probs)

    def coarse_outputs(
        self, memory: Tensor, mel: Tensor, text_lengths: Tensor, p_teacher: float
    ) -> CoarseOutputs | None:
        """The coarse decoder on the same text, memory [B, T_text, E], mel [B, n_mels, T_mel], text_lengths [B]; no
        gradient of it reaches the encoder. None without it.
        """
        if self.coarse_decoder is None:
            return None
        assert mel.size(2) % self.coarse_decoder.r == 0, f"T_mel={mel.size(2)} is no multiple of ddc_reduction_factor"
        taught = self.coarse_decoder(memory.detach(), mel, text_lengths, p_teacher=p_teacher)
        return CoarseOutputs(at_least_float32(taught[0]), at_least_float32(taught[1]), taught[2])

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
        memory, _ = self.apply_style(memory, text_lengths, style=style)
        mel, gates, alignments, tracker = self.decoder.infer(memory, text_lengths, limits, generator)
        spoken = []
        for i, (steps, symbols) in enumerate(zip(tracker.n_steps.tolist(), text_lengths.tolist(), strict=True)):
            own = mel[i : i + 1, :, : steps * self.r]
            refined = (own + self.postnet(own))[0]
            spoken.append(Decoded(refined, gates[i, :steps], alignments[i, :steps, :symbols], tracker.reasons[i]))
        return spoken


def coarse_settings(hp: NetworkParams) -> NetworkParams:
    """Of the second decoder: one r throughout. Its steps are too long for forward attention's one symbol a step."""
    r = {"n_frames_per_step": hp.ddc_reduction_factor, "reduction_schedule": ()}
    return hp.model_copy(update={**r, "use_forward_attention": False})


def without_training_parts(hp: HParams) -> HParams:
    """For a model that only speaks: without recogniser and coarse decoder."""
    return hp.model_copy(update={"use_mmi": False, "use_ddc_loss": False})


def decoder_steps(mel_lengths: Tensor, r: int) -> Tensor:
    """Decoder steps that cover so many frames: mel_lengths [B] -> ceil(length / r), [B]."""
    return (mel_lengths + r - 1) // r


def pad_texts(sequences: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Ids of several texts -> text [B, T_text] padded with 0, text_lengths [B]."""
    texts = [torch.tensor(sequence) for sequence in sequences]
    return pad_sequence(texts, batch_first=True), torch.tensor([len(text) for text in texts])
