"""The decoder's step loops by definition: one step after the other, gradients by autograd.

`plain_loop` shows every step the recording; `kernels` has its fast twin. `scheduled_sampling_loop` feeds frames back,
for which the prenet has to run inside. `chunk` is that of `activation_checkpointing.states_of`.
"""

from functools import cache
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from common.log import LOG
from hparams import ModelParams
from layers import Attention, LinearNorm, Memory, Prenet
from modules.activation_checkpointing import states_of
from modules.stopping import DecodedSteps, StopTracker

Masks = tuple[Tensor | None, Tensor | None]  # dropout of the attention and the decoder LSTM, [T_dec, B, D] each


class AttentionState(NamedTuple):
    """What the attention loop carries from step to step."""

    hidden: Tensor  # [B, D]
    cell: Tensor  # [B, D]
    context: Tensor  # [B, E]
    weights: Tensor  # [B, 2, T_text] of the last step, and summed over all steps


class LoopState(NamedTuple):
    """What a loop that feeds its own frames back carries."""

    attention: AttentionState
    hidden: Tensor  # [B, D] of the decoder LSTM
    cell: Tensor  # [B, D]
    own: Tensor  # [B, n_mels] the last frame decoded


class DecoderParts(Protocol):
    """What of a decoder its loops read: those here, and their fast equals in `kernels`."""

    n_mels: int
    r: int
    prenet: Prenet
    attention_rnn: nn.LSTMCell
    attention_layer: Attention
    decoder_rnn: nn.LSTMCell
    linear_projection: LinearNorm
    gate_layer: LinearNorm

    @property
    def backend(self) -> str: ...
    def first_state(self, memory: Tensor) -> AttentionState: ...
    def attention_step(
        self, prenet_out: Tensor, state: AttentionState, memory: Memory, hidden_mask: Tensor | None
    ) -> AttentionState: ...
    def project(self, features: Tensor) -> tuple[Tensor, Tensor]: ...


def plain_loop(
    decoder: DecoderParts, prenet_out: Tensor, memory: Memory, masks: Masks, *, chunk: int | None
) -> tuple[Tensor, Tensor]:
    """prenet_out [T_dec, B, prenet_dim] -> features [T_dec, B, D + E], alignments [T_dec, B, T_text].

    The decoder LSTM feeds nothing back into attention, so it runs after the attention loop.
    """
    attention_mask, decoder_mask = masks
    T_dec, B, _ = prenet_out.shape

    def attend(start: int, stop: int, state: AttentionState) -> list[AttentionState]:
        states = [state]
        for t in range(start, stop):
            states.append(decoder.attention_step(prenet_out[t], states[-1], memory, _at(attention_mask, t)))
        return states[1:]

    def speak(start: int, stop: int, state: tuple[Tensor, Tensor]) -> list[tuple[Tensor, Tensor]]:
        states = [state]
        for t in range(start, stop):
            hidden, cell = decoder.decoder_rnn(inputs[t], states[-1])
            states.append((_dropped(hidden, _at(decoder_mask, t)), cell))
        return states[1:]

    attended = states_of(attend, decoder.first_state(memory.values), T_dec, chunk=chunk)
    inputs = torch.stack([torch.cat((s.hidden, s.context), 1) for s in attended])  # [T_dec, B, D + E]
    zeros = inputs.new_zeros(B, decoder.decoder_rnn.hidden_size)
    spoken = states_of(speak, (zeros, zeros), T_dec, chunk=chunk)
    contexts = torch.stack([s.context for s in attended])
    alignments = torch.stack([s.weights[:, 0] for s in attended])  # [T_dec, B, T_text]
    return torch.cat((torch.stack([hidden for hidden, _ in spoken]), contexts), 2), alignments


def scheduled_sampling_loop(
    decoder: DecoderParts, frames: Tensor, memory: Memory, masks: Masks, is_teacher_forced: Tensor, *, chunk: int | None
) -> tuple[Tensor, Tensor]:
    """Scheduled sampling (arXiv 1506.03099): where `is_teacher_forced` is False, a step reads the last frame decoded.

    frames [T_dec, B, n_mels] of the recording, is_teacher_forced [T_dec, B, 1] -> as `plain_loop`. No gradient flows
    through what is fed back.
    """
    attention_mask, decoder_mask = masks

    def run(start: int, stop: int, state: LoopState) -> list[LoopState]:
        states = [state]
        for t in range(start, stop):
            last = states[-1]
            prenet_out = decoder.prenet(torch.where(is_teacher_forced[t], frames[t], last.own.to(frames.dtype)))
            attention = decoder.attention_step(prenet_out, last.attention, memory, _at(attention_mask, t))
            inputs = torch.cat((attention.hidden, attention.context), 1)
            hidden, cell = decoder.decoder_rnn(inputs, (last.hidden, last.cell))
            hidden = _dropped(hidden, _at(decoder_mask, t))
            with torch.no_grad():
                own = decoder.project(torch.cat((hidden, attention.context), 1))[0][:, -decoder.n_mels :]
            states.append(LoopState(attention, hidden, cell, own))
        return states[1:]

    zeros = memory.values.new_zeros(frames.size(1), decoder.decoder_rnn.hidden_size)
    first = LoopState(decoder.first_state(memory.values), zeros, zeros, torch.zeros_like(frames[0]))
    states = states_of(run, first, frames.size(0), chunk=chunk, draws=True)
    features = torch.stack([torch.cat((s.hidden, s.attention.context), 1) for s in states])
    return features, torch.stack([s.attention.weights[:, 0] for s in states])


def inference_loop(
    decoder: DecoderParts, memory: Memory, tracker: StopTracker, generator: torch.Generator | None
) -> DecodedSteps:
    """Feeds its own frames back until every text has stopped."""
    state, B = decoder.first_state(memory.values), memory.values.size(0)
    hidden = cell = memory.values.new_zeros(B, decoder.decoder_rnn.hidden_size)
    frame = memory.values.new_zeros(B, decoder.n_mels)
    steps = []
    while not tracker.all_stopped:
        state = decoder.attention_step(decoder.prenet(frame, generator), state, memory, None)
        hidden, cell = decoder.decoder_rnn(torch.cat((state.hidden, state.context), 1), (hidden, cell))
        features = torch.cat((hidden, state.context), 1)
        steps.append(DecodedSteps(*decoder.project(features), state.weights[:, 0]))
        frame = steps[-1].projected[:, -decoder.n_mels :]
        tracker.observe(torch.sigmoid(steps[-1].gate_logits), steps[-1].weights)
    return DecodedSteps(*(torch.stack(parts) for parts in zip(*steps, strict=True)))


def _at(mask: Tensor | None, t: int) -> Tensor | None:
    return None if mask is None else mask[t]


def _dropped(hidden: Tensor, mask: Tensor | None) -> Tensor:
    return hidden if mask is None else hidden * mask


def plain_reasons(hp: ModelParams) -> tuple[str, ...]:
    """The settings that the fast loop does not cover."""
    settings = {
        "use_forward_attention": hp.use_forward_attention,
        "use_attention_smoothing": hp.use_attention_smoothing and hp.attention_smoothing_factor > 0.0,
        "use_location_sensitive_attention=False": not hp.use_location_sensitive_attention,
    }
    return tuple(name for name, is_on in settings.items() if is_on)


@cache
def log_fast_loop_recomputes() -> None:
    LOG.info("use_memory_efficient_attention acts in the plain decoder loop; the fast one always computes again")


@cache
def warn_of_plain_loop(reasons: tuple[str, ...]) -> None:
    """Once a process for each set of reasons."""
    LOG.warning("the plain decoder loop runs, which is slower: the fast one does not know %s", ", ".join(reasons))
