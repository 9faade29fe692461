"""InferenceArguments without a teacher by the compiled loop: `kernels.inference` says what it computes."""

import ctypes
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from kernels.inference import draw_masks
from kernels.native import PANEL, call, fields_of, fill, loaded, pack, processor_flags
from kernels.native_loops import are_sizes_supported, folded
from kernels.packed_weights import InferencePrecision, in_int8
from layers import Memory
from modules.decoder_loops import DecoderParts
from modules.stopping import DecodedSteps

STEPS_AT_ONCE = 8  # between two looks at who has stopped
BYTES: dict[InferencePrecision, int] = {"fp32": 4, "bf16": 2, "int8": 1}

_SIZES = (
    "n_threads", "n_steps", "B", "n_texts", "N", "L", "pad", "D", "D_dec", "E", "A", "U", "n_mels", "n_prenet", "n_out",
    "S", "by_symbol",
)  # fmt: skip
_BUFFERS = (
    "first_layer", "second_layer", "query", "out", "kernel", "v", "from_prenet", "attention_recurrent", "decoder_input",
    "decoder_recurrent", "to_attention", "to_decoder", "to_out", "bias", "decoder_bias", "out_bias", "keys", "values",
    "lengths", "rows", "masks", "states", "cells", "padded", "outputs", "alignments",
)  # fmt: skip


class InferenceArguments(ctypes.Structure):
    """The struct of the same name in `native_inference.cpp`, field by field."""

    _fields_ = fields_of(_SIZES, _BUFFERS)


def is_supported(decoder: DecoderParts) -> bool:
    """Whether the compiled loop knows this attention, these widths and this machine."""
    attention, layer = decoder.attention_rnn, decoder.attention_layer
    keys = layer.memory_layer.linear_layer
    is_known = layer.use_location and layer.normalise.is_softmax
    return is_known and are_sizes_supported(
        attention.hidden_size, decoder.decoder_rnn.hidden_size, keys.in_features, keys.out_features,
        kernel_size=_kernel_size(decoder), dtype=attention.weight_ih.dtype, device=attention.weight_ih.device,
    )  # fmt: skip


def why_unsupported(decoder: DecoderParts, precision: InferencePrecision) -> str | None:
    """Why the compiled loop can't take this decoder with LSTM weights of that precision here; None if it can."""
    if loaded() is None:
        return "only the compiled loop has it, which needs a processor with AVX-512 and a C++ compiler"
    if not is_supported(decoder):
        return "only the compiled loop has it, which supports neither this attention, these widths nor a GPU"
    if precision == "int8" and "avx512_vnni" not in processor_flags():
        return "this processor has no int8 instructions (VNNI)"
    return None


def _kernel_size(decoder: DecoderParts) -> int:
    return decoder.attention_layer.location_layer.location_conv.conv.kernel_size[0]


class CompiledWeights:
    """The weights of a decoder as the compiled loop reads them. They don't follow later changes of the decoder."""

    def __init__(self, decoder: DecoderParts, *, precision: InferencePrecision = "fp32") -> None:
        """precision: of the two LSTMs, which are nearly all; the rest stays fp32."""
        attention, decoder_rnn, layer = decoder.attention_rnn, decoder.decoder_rnn, decoder.attention_layer
        projection, gate = decoder.linear_projection.linear_layer, decoder.gate_layer.linear_layer
        first, second = decoder.prenet.weights
        D, D_dec = attention.hidden_size, decoder_rnn.hidden_size
        n_prenet, n_out = first.size(0), decoder.r * decoder.n_mels
        out = torch.cat((projection.weight[:n_out], gate.weight)).detach()  # [n_out + 1, D_dec + E]
        self.r, self.precision = decoder.r, precision
        # what reads the context, and the units of each: both LSTMs and the projections
        from_context = attention.weight_ih[:, n_prenet:], decoder_rnn.weight_ih[:, D:], out[:, D_dec:]
        self.of_context = list(zip((weight.detach() for weight in from_context), (D, D_dec, 0), strict=True))
        self.sizes = {
            "D": D, "D_dec": D_dec, "A": layer.query_layer.linear_layer.out_features, "pad": _kernel_size(decoder) // 2,
            "n_mels": decoder.n_mels, "n_prenet": n_prenet, "n_out": n_out + 1,
        }  # fmt: skip
        self.buffers = {
            "first_layer": self.packed(first, 0),
            "second_layer": self.packed(second, 0),
            "query": self.packed(layer.query_layer.linear_layer.weight, 0),
            "out": self.packed(out[:, :D_dec], 0),
            "kernel": folded(layer.location_layer.folded_kernel().detach(), is_half=False)["kernel"],
            "v": layer.v.linear_layer.weight.detach().flatten(),
            "from_prenet": self.packed(attention.weight_ih[:, :n_prenet], D),
            "attention_recurrent": self.packed(attention.weight_hh, D),
            "decoder_input": self.packed(decoder_rnn.weight_ih[:, :D], D_dec),
            "decoder_recurrent": self.packed(decoder_rnn.weight_hh, D_dec),
            "bias": (attention.bias_ih + attention.bias_hh).detach(),
            "decoder_bias": (decoder_rnn.bias_ih + decoder_rnn.bias_hh).detach(),
            "out_bias": torch.cat((projection.bias[:n_out], gate.bias)).detach(),
        }

    def packed(self, weight: Tensor, units: int) -> Tensor:
        """weight [4 * units, K] of an LSTM in the precision of these; with units=0 [n, K] of something else in fp32."""
        if units and self.precision == "int8":
            return in_bytes(weight.detach())
        return pack(weight.t(), is_half=units > 0 and self.precision == "bf16", units=units)

    @cached_property
    def by_context(self) -> list[Tensor]:
        """The products with the context: packed tables of [4D, E], [4D_dec, E] and [n_out, E]."""
        return [self.packed(weight, units) for weight, units in self.of_context]

    def by_symbol(self, values: Tensor) -> list[Tensor]:
        """The products of every symbol, made beforehand, the texts one after the other; values [B, T_text, E]."""
        return [
            torch.cat([self.packed(F.linear(rows, weight).t(), units) for rows in values])
            for weight, units in self.of_context
        ]

    def fits(self, n_rows: int, r: int) -> bool:
        return n_rows == 1 and self.r == r

    def begin(self, decoder: DecoderParts, memory: Memory) -> "CompiledLoop":
        return CompiledLoop(decoder, self, memory)


def in_bytes(weight: Tensor) -> Tensor:
    """weight [4D, K] -> int8 panels as `native_vectors.h` reads them, scales and sums behind each: [D / 16, bytes]."""
    whole, scale = in_int8(F.pad(weight, (0, -weight.size(1) % 32)))
    n_panels = len(weight) // PANEL

    def by_panel(x: Tensor) -> Tensor:  # four bytes for each row: [4D] -> [n_panels, 4 * PANEL]
        return x.view(4, n_panels, 16).transpose(0, 1).reshape(n_panels, PANEL).view(torch.uint8)

    fours = whole.view(4, n_panels, 16, -1, 4).permute(1, 3, 0, 2, 4).reshape(n_panels, -1)
    return torch.cat((fours.view(torch.uint8), by_panel(scale), by_panel(whole.sum(1, dtype=torch.int32))), 1)


class CompiledLoop:
    """Draws dropout for some steps, runs them, hands out what was decoded; and again, from where it stopped.

    What is dropped repeats its last steps.
    """

    def __init__(self, decoder: DecoderParts, weights: CompiledWeights, memory: Memory) -> None:
        values = memory.values.detach().float().contiguous()
        (B, N, E), n, sizes = values.shape, STEPS_AT_ONCE, weights.sizes
        uses_symbols = 2 * B * N < E  # to make them takes as long as a tenth of a step for each symbol
        tables = weights.by_symbol(values) if uses_symbols else weights.by_context
        U, L = N if uses_symbols else E, -(-N // 32) * 32 + 64
        both = sizes["D"] + sizes["D_dec"]
        S = both + -(-U // 32) * 32
        self.slots, self.keep = list(range(B)), 1.0 - decoder.prenet.speaking_dropout  # slots: the text in each
        self.masks, self.rows = torch.ones(n, 2, B, sizes["n_prenet"]), torch.arange(B)
        # the first step reads zeros
        self.outputs, self.alignments = torch.zeros(n, B, sizes["n_out"]), torch.zeros(n, B, N)
        self.states, self.cells, self.padded = torch.zeros(n + 1, B, S), torch.zeros(B, both), torch.zeros(B, 2, L)
        self.buffers = {  # kept, as the struct holds only addresses
            **weights.buffers, **dict(zip(("to_attention", "to_decoder", "to_out"), tables, strict=True)),
            "keys": memory.keys.detach().float().contiguous(), "values": F.pad(values, (0, 0, 0, N % 2)),
            "lengths": (~memory.padding).sum(1), "rows": self.rows, "masks": self.masks, "states": self.states,
            "cells": self.cells, "padded": self.padded, "outputs": self.outputs, "alignments": self.alignments,
        }  # fmt: skip
        self.arguments, self.bytes = InferenceArguments(n_threads=torch.get_num_threads()), BYTES[weights.precision]
        fill(
            self.arguments, **sizes, n_steps=n, B=B, n_texts=B, N=N, L=L, E=E, U=U, S=S, by_symbol=uses_symbols,
            **self.buffers,
        )  # fmt: skip

    def draw(self, generator: torch.Generator | None) -> None:
        draw_masks(self.masks, self.keep, generator)

    def run(self) -> None:
        n = len(self.slots)
        self.states[0, :n] = self.states[-1, :n]
        call("run_inference", self.arguments, self.bytes)

    def drop_stopped(self, stopped_at: Sequence[int]) -> None:
        """Those that have not stopped move together."""
        kept = [slot for slot, text in enumerate(self.slots) if not stopped_at[text]]
        n = self.arguments.B = len(kept)
        if n < len(self.slots):
            self.slots = [self.slots[slot] for slot in kept]
            self.rows[:n] = torch.tensor(self.slots)
            for buffer in (self.states[-1], self.cells, self.padded):
                buffer[:n] = buffer[kept]

    def take(self) -> DecodedSteps:
        """What the last run decoded; later runs leave it alone."""
        return DecodedSteps(self.outputs[:, :, :-1].clone(), self.outputs[:, :, -1].clone(), self.alignments.clone())
