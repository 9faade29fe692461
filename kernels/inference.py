r"""Speech without a teacher, some steps at a time on fixed buffers; equal to `decoder_loops.inference_loop`.

    a_t = P prenet(y_) + A h_ + C x_ + bias     c_t, h_t = LSTM cell                          attention LSTM
    z_t = Q h_t + keys + U_t K                  w_t = softmax(v . tanh(z_t)), x_t = w_t values
    b_t = R h_t + S x_t + D d_ + bias           d_t = LSTM cell                               decoder LSTM
    y_t, g_t = O [d_t, x_t] + bias

A step reads the frame decoded before it, so only the layout can be better than by definition. x_t = w_t values enters
linearly: [C; S] x_t = w_t ([C; S] values). Where the texts have fewer symbols than the encoder is wide, that product is
made once for every symbol, and a step reads it in place of the larger weights.

No step waits for the device, and every buffer keeps its address: on a GPU the steps of a run are recorded once.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from kernels.chunked_steps import TEXT_MULTIPLE, pad_to_multiple
from kernels.cuda_graphs import record_graph
from kernels.host_sync import is_gpu, read_async
from kernels.lstm_cell import CellStep, advance
from kernels.matmul import PACKING_PAYS_FROM
from kernels.packed_weights import Matrix, SparseColumns
from layers import Attention, Memory, Prenet
from modules.decoder_loops import DecoderParts
from modules.stopping import DecodedSteps, StopTracker

# Steps between two looks at who has stopped; steps too many are thrown away. A GPU does the next ones meanwhile, so
# that it never waits for the host.
STEPS_ON_CPU, STEPS_ON_DEVICE = 4, 32


def fast_inference_loop(
    decoder: DecoderParts,
    weights: "InferenceWeights",
    memory: Memory,
    tracker: StopTracker,
    generator: torch.Generator | None,
) -> DecodedSteps:
    """Speaks until every text has stopped. Some steps run past the end and are cut off."""
    device = memory.values.device
    runs_ahead = 1 if is_gpu(device) else 0
    with torch.autocast(device.type, enabled=False):
        loop, parts = weights.begin(decoder, memory), []
        signals: deque[Callable[[], list[list[tuple[bool, bool]]]]] = deque()
        while not tracker.all_stopped:
            loop.draw(generator)
            loop.run()
            parts.append(loop.take())
            signals.append(read_async(tracker.stop_signals(torch.sigmoid(parts[-1].gate_logits), parts[-1].weights)))
            if len(signals) > runs_ahead:
                tracker.update(signals.popleft()())
                loop.drop_stopped(tracker.stopped_at)
    n = max(tracker.stopped_at)
    return DecodedSteps(*(torch.cat(part)[:n] for part in zip(*parts, strict=True)))


class InferenceLoop(Protocol):
    """Some steps of every text, again and again."""

    def draw(self, generator: torch.Generator | None) -> None: ...
    def run(self) -> None: ...
    def take(self) -> DecodedSteps: ...
    def drop_stopped(self, stopped_at: Sequence[int]) -> None:
        """Where this is not 0, a text has stopped and need not be spoken any further."""
        ...


class InferenceWeights(Protocol):
    """The weights of a decoder, laid out for one implementation."""

    def fits(self, n_rows: int, r: int) -> bool:
        """Whether so many texts at once, with r frames a step, can be spoken with them."""
        ...

    def begin(self, decoder: DecoderParts, memory: Memory) -> InferenceLoop: ...


def draw_masks(masks: Tensor, keep: float, generator: torch.Generator | None) -> None:
    """The prenet's dropout, drawn in the order in which the plain loop draws it: so a seed says the same.

    masks [n_steps, n_layers, B, width]; they stay as they are where nothing is dropped.
    """
    if keep == 1.0:
        return
    for mask in masks.flatten(0, 1).unbind(0):
        mask.bernoulli_(keep, generator=generator)
    masks.div_(keep)


class TorchWeights:
    """The weights of a decoder as the steps read them. They follow later changes of the decoder only in part."""

    def __init__(self, decoder: DecoderParts, *, n_rows: int, is_persistent: bool = False) -> None:
        """n_rows: texts at once. is_persistent: for many texts, so what is recorded is kept."""
        attention, decoder_rnn, prenet_dim = decoder.attention_rnn, decoder.decoder_rnn, _width(decoder.prenet)
        D, n_out = attention.hidden_size, decoder.r * decoder.n_mels
        projection, gate = decoder.linear_projection.linear_layer, decoder.gate_layer.linear_layer
        matrix = partial(Matrix, n_rows=n_rows)
        self.n_rows, self.r = n_rows, decoder.r
        self.is_persistent = is_persistent
        self.recorded: dict[int, TorchLoop] = {}  # by symbols
        self.prenet = [matrix(weight) for weight in decoder.prenet.weights]
        from_prenet = attention.weight_ih[:, :prenet_dim]  # P
        # ReLU and dropout leave about a quarter of the prenet's output
        is_sparse = n_rows == 1 and from_prenet.device.type == "cpu" and from_prenet.numel() >= PACKING_PAYS_FROM
        self.from_prenet = SparseColumns(from_prenet) if is_sparse else matrix(from_prenet)
        self.attention_recurrent = matrix(attention.weight_hh)  # A
        self.decoder_input = matrix(decoder_rnn.weight_ih[:, :D])  # R
        self.decoder_recurrent = matrix(decoder_rnn.weight_hh)  # D
        context = (attention.weight_ih[:, prenet_dim:], decoder_rnn.weight_ih[:, D:])
        self.from_context = matrix(torch.cat(context))  # [C; S]
        self.query = matrix(decoder.attention_layer.query_layer.linear_layer.weight)
        self.out = matrix(torch.cat((projection.weight[:n_out], gate.weight)))
        biases = (attention.bias_ih + attention.bias_hh, decoder_rnn.bias_ih + decoder_rnn.bias_hh)
        self.bias = torch.cat(biases).detach()  # [4D + 4D]
        self.out_bias = torch.cat((projection.bias[:n_out], gate.bias)).detach()

    def fits(self, n_rows: int, r: int) -> bool:
        return (self.n_rows, self.r) == (n_rows, r)

    def begin(self, decoder: DecoderParts, memory: Memory) -> "TorchLoop":
        """On a GPU, recording takes longer than a sentence: one loop serves all texts of about the same length."""
        if not is_gpu(memory.values.device):
            return TorchLoop(decoder, self, memory, n_steps=STEPS_ON_CPU)
        if decoder.backend == "fast":
            return TorchLoop(decoder, self, memory, n_steps=STEPS_ON_DEVICE)
        values, keys, inside = (
            pad_to_multiple(x, 1, TEXT_MULTIPLE) for x in (memory.values, memory.keys, ~memory.padding)
        )
        longer, n_symbols = replace(memory, values=values, keys=keys, padding=~inside), values.size(1)
        loop = self.recorded.get(n_symbols)
        if loop is None:
            loop = TorchLoop(decoder, self, longer, n_steps=STEPS_ON_DEVICE)
            loop.record()
        if self.is_persistent:
            self.recorded[n_symbols] = loop
        loop.begin(longer)
        return loop


def _width(prenet: Prenet) -> int:
    return prenet.weights[-1].size(0)


class TorchLoop:
    """Draws dropout for `n_steps` steps, runs them, hands out what was decoded; and again, from where it stopped.

    `begin` makes it ready for another text of the same shape.
    """

    def __init__(self, decoder: DecoderParts, weights: TorchWeights, memory: Memory, *, n_steps: int) -> None:
        self.weights, self.n_mels = weights, decoder.n_mels
        self.attention = AttentionBuffers(decoder.attention_layer, memory)
        like, n, B = memory.values.detach(), n_steps, memory.values.size(0)
        E, D, D_dec = like.size(2), decoder.attention_rnn.hidden_size, decoder.decoder_rnn.hidden_size
        n_out, width, n_layers = decoder.r * decoder.n_mels, _width(decoder.prenet), len(weights.prenet)
        self.masks, self.keep = like.new_ones(n, n_layers, B, width), 1.0 - decoder.prenet.speaking_dropout
        self.outputs = like.new_zeros(n, B, n_out + 1)  # the gate's logit last; the first step reads zeros
        self.alignments = like.new_zeros(n, B, like.size(1))
        self.bias, self.out_bias = (b.expand(B, -1).contiguous() for b in (weights.bias, weights.out_bias))
        self.sums = self.bias.clone()  # for the next attention step, and for this step's decoder LSTM
        self.prenet_out = [like.new_zeros(B, width) for _ in range(n_layers)]
        self.no_bias = like.new_zeros(B, width)
        self.attention_in, self.decoder_in = self.sums[:, : 4 * D], self.sums[:, 4 * D :]
        self.attention_bias, self.decoder_bias = self.bias[:, : 4 * D], self.bias[:, 4 * D :]
        self.features = like.new_zeros(B, D_dec + E)
        self.context = self.features[:, D_dec:].unsqueeze(1)  # [B, 1, E]
        self.attention_cell = cell_buffers(like.new_zeros(B, D))
        self.decoder_cell = cell_buffers(self.features[:, :D_dec])
        self.scratch = like.new_empty(B, D), like.new_empty(B, D_dec)
        self.by_symbol: Tensor | None = None
        if B * like.size(1) < E:
            self.by_symbol = like.new_empty(B, like.size(1), self.bias.size(1))
        self._open_views(n, n_out)
        self.recording: torch.cuda.CUDAGraph | None = None
        self.begin(memory)

    def record(self) -> None:
        """From now on a run is one launch. What has been decoded is lost: `begin` anew."""
        self.recording = record_graph(self.run, self.outputs.device)

    def begin(self, memory: Memory) -> None:
        """Nothing decoded or attended to yet."""
        self.attention.begin(memory)
        for state in (self.outputs, self.features, self.attention_cell.cell, self.decoder_cell.cell):
            state.zero_()
        self.sums.copy_(self.bias)
        if self.by_symbol is not None:
            self.by_symbol.copy_(self.weights.from_context.of_rows(memory.values.detach()))  # [B, T_text, 4D + 4D]

    def _open_views(self, n: int, n_out: int) -> None:
        """A view of every step, cut once. Before the first step lies the last one of the run before."""
        frames = self.outputs[:, :, n_out - self.n_mels : n_out].unbind(0)
        previous = [frames[t - 1] for t in range(n)]
        masks = [step.unbind(0) for step in self.masks.unbind(0)]
        self.steps = list(zip(previous, masks, self.outputs.unbind(0), self.alignments.unbind(0), strict=True))

    def draw(self, generator: torch.Generator | None) -> None:
        draw_masks(self.masks, self.keep, generator)

    def run(self) -> None:
        if self.recording is not None:
            return self.recording.replay()
        for previous, masks, out, alignment in self.steps:
            self._step(previous, masks, out, alignment)

    def _step(self, previous: Tensor, masks: tuple[Tensor, ...], out: Tensor, alignment: Tensor) -> None:
        weights = self.weights
        for layer, mask, layer_out in zip(weights.prenet, masks, self.prenet_out, strict=True):
            layer.add(self.no_bias, previous, out=layer_out)
            previous = layer_out.relu_().mul_(mask)
        weights.from_prenet.add(self.attention_in, previous, out=self.attention_cell.gates)
        advance(self.attention_cell, self.scratch[0])
        hidden = self.attention_cell.hidden
        self.attention.step(hidden, weights.query, alignment)
        torch.bmm(alignment.unsqueeze(1), self.attention.values, out=self.context)
        weights.attention_recurrent.add(self.attention_bias, hidden, out=self.attention_in)
        weights.decoder_input.add(self.decoder_bias, hidden, out=self.decoder_in)
        self._add_context(alignment)
        weights.decoder_recurrent.add(self.decoder_in, self.decoder_cell.hidden, out=self.decoder_cell.gates)
        advance(self.decoder_cell, self.scratch[1])
        weights.out.add(self.out_bias, self.features, out=out)

    def _add_context(self, alignment: Tensor) -> None:
        if self.by_symbol is None:
            self.weights.from_context.add(self.sums, self.context[:, 0], out=self.sums)
        elif len(alignment) == 1:
            self.sums[0].addmv_(self.by_symbol[0].t(), alignment[0])
        else:
            self.sums.unsqueeze(1).baddbmm_(alignment.unsqueeze(1), self.by_symbol)

    def drop_stopped(self, stopped_at: Sequence[int]) -> None:
        """They go on in vain: products of fewer rows would be laid out anew."""

    def take(self) -> DecodedSteps:
        """What the last run decoded; later runs leave it alone."""
        return DecodedSteps(self.outputs[:, :, :-1].clone(), self.outputs[:, :, -1].clone(), self.alignments.clone())


def cell_buffers(hidden: Tensor) -> CellStep:
    """For an LSTM cell that is stepped in place. hidden [B, D], the buffer it writes to."""
    B, D = hidden.shape
    gates, cell = hidden.new_zeros(B, 4 * D), hidden.new_zeros(B, D)
    i, f, g, o = gates.chunk(4, 1)
    return CellStep(gates, i, f, g, o, cell, cell, hidden, None)


class AttentionBuffers:
    """Location-sensitive attention, step by step; any normalisation."""

    def __init__(self, layer: Attention, memory: Memory) -> None:
        keys, (B, T_text, A) = memory.keys.detach(), memory.keys.shape
        self.keys2, self.values = torch.empty_like(keys), torch.empty_like(memory.values).contiguous()
        self.padding = torch.zeros_like(memory.padding)
        self.normalise, self.uses_location = layer.normalise, layer.use_location
        kernel = layer.location_layer.folded_kernel().detach()  # [A, 2, kernel_size]
        kernel_size = kernel.size(2)
        pad, L = kernel_size // 2, T_text + kernel_size - 1
        padded = keys.new_zeros(B, 2, L)  # last and summed weights, zeros around them
        self.attended = padded[:, :, pad : pad + T_text]
        self.last, self.summed = self.attended.unbind(1)
        # window sample j of position n is padded[n + j]; n innermost, so that copies are long runs
        self.windows = padded.as_strided((2, kernel_size, B, T_text), (L, 1, 2 * L, 1))
        self.seen = keys.new_zeros(2, kernel_size, B, T_text)
        self.seen_rows = self.seen.view(2 * kernel_size, -1).t()
        # s = sigmoid(2z) stands for tanh(z) = 2s - 1: several times as fast on CPUs
        v = layer.v.linear_layer.weight.detach().squeeze(0)
        self.kernel2, self.v2 = 2 * kernel.flatten(1).t().contiguous(), 2 * v
        self.offset = (-v.sum()).expand(B * T_text).contiguous()
        self.features, self.energies = torch.empty_like(self.keys2), keys.new_empty(B, T_text)
        self.query, self.no_query = keys.new_zeros(B, A), keys.new_zeros(B, A)

    def begin(self, memory: Memory) -> None:
        torch.mul(memory.keys.detach(), 2.0, out=self.keys2)
        self.values.copy_(memory.values.detach())
        self.padding.copy_(memory.padding)
        self.attended.copy_(self.normalise.first_weights(torch.zeros_like(self.attended)))

    def step(self, hidden: Tensor, query: Matrix, weights: Tensor) -> None:
        """hidden [B, D] -> weights [B, T_text]."""
        query.add(self.no_query, hidden, out=self.query)
        self.query.mul_(2.0)
        torch.add(self.keys2, self.query.unsqueeze(1), out=self.features)
        rows = self.features.view(-1, self.features.size(2))
        if self.uses_location:
            self.seen.copy_(self.windows)
            rows.addmm_(self.seen_rows, self.kernel2)
        torch.addmv(self.offset, rows.sigmoid_(), self.v2, out=self.energies.view(-1))
        weights.copy_(self.normalise(self.energies, self.padding, self.last))
        self.last.copy_(weights)
        self.summed.add_(weights)
