"""Encoder, decoder step and postnet as ONNX graphs, for one text at a time, each compared with torch."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from common.errors import UserError
from exporting.recurrent import OPSET, OnnxRecurrent
from layers import Memory
from model import Encoder, Tacotron2
from modules.decoder_loops import AttentionState
from player.voice import STATE
from speech.vocoders.onnx_export import quiet_exporter

LARGEST_DIFFERENCE = 1e-4  # between onnxruntime and torch, in standardised log-mels and states
TRACED_SYMBOLS, COMPARED_SYMBOLS = 11, 17
TRACED_FRAMES, COMPARED_FRAMES = 40, 67


@dataclass(frozen=True)
class Graph:
    """ONNX bytes, and how far onnxruntime's outputs are from torch's on random inputs of another length."""

    content: bytes
    largest_difference: float


class EncoderGraph(nn.Module):
    """A text to what the decoder reads; style tokens are weighted as the text suggests."""

    def __init__(self, model: Tacotron2) -> None:
        super().__init__()
        self.model = copy.deepcopy(model)
        self.model.encoder = _WholeEncoder(self.model.encoder)  # type: ignore[assignment]

    def forward(self, text: Tensor, speaker: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """text [1, T_text], speaker [1] -> memory [1, T_text, E], keys [1, T_text, A]"""
        lengths = torch.full((1,), text.size(1))
        memory = self.model.encode(text, lengths, speakers=speaker)
        memory, _ = self.model.apply_style(memory, lengths)
        return memory, self.model.decoder.attention_layer.memory_layer(memory)


class _WholeEncoder(nn.Module):
    """`Encoder` for one text: nothing is padded, so nothing needs packing, which ONNX has not."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, embedded: Tensor, _text_lengths: Tensor) -> Tensor:
        x = embedded
        for convolution in self.encoder.convolutions:
            x = torch.relu(convolution(x))
        return self.encoder.lstm(x.transpose(1, 2))[0]


def traceable(graph: EncoderGraph) -> EncoderGraph:
    """The same with ONNX's recurrent operators, which torch can trace and not run."""
    graph = copy.deepcopy(graph)
    encoder: Any = graph.model.encoder
    encoder.encoder.lstm = OnnxRecurrent(encoder.encoder.lstm)
    if graph.model.tpgst is not None:
        graph.model.tpgst.gru = OnnxRecurrent(graph.model.tpgst.gru)  # type: ignore[assignment]
    return graph


class DecoderStepGraph(nn.Module):
    """`modules.decoder_loops.inference_loop`'s step, its dropout handed in."""

    def __init__(self, model: Tacotron2) -> None:
        super().__init__()
        self.decoder = model.decoder

    def forward(
        self,
        memory: Tensor,
        keys: Tensor,
        masks: Tensor,
        frame: Tensor,
        attention_hidden: Tensor,
        attention_cell: Tensor,
        context: Tensor,
        weights: Tensor,
        decoder_hidden: Tensor,
        decoder_cell: Tensor,
    ) -> tuple[Tensor, ...]:
        """masks [2, 1, prenet_dim]: 0, or 1 / keep -> frames [1, r * n_mels], gate logit [1], the next state"""
        heard = frame
        for layer, mask in zip(self.decoder.prenet.layers, masks, strict=True):
            heard = torch.relu(layer(heard)) * mask
        attended = Memory(memory, keys, torch.zeros(1, memory.size(1), dtype=torch.bool))
        before = AttentionState(attention_hidden, attention_cell, context, weights)
        state = self.decoder.attention_step(heard, before, attended, None)
        said = self.decoder.decoder_rnn(torch.cat((state.hidden, state.context), 1), (decoder_hidden, decoder_cell))
        frames, gate = self.decoder.project(torch.cat((said[0], state.context), 1))
        return frames, gate, *state, *said


class PostnetGraph(nn.Module):
    def __init__(self, model: Tacotron2) -> None:
        super().__init__()
        self.postnet = model.postnet

    def forward(self, mel: Tensor) -> Tensor:
        return mel + self.postnet(mel)


@torch.no_grad()
def graphs_of(model: Tacotron2) -> dict[str, Graph]:
    """By the names of `player.archive.GRAPHS`. UserError where onnxruntime's numbers differ by more than 1e-4."""
    model = copy.deepcopy(model).cpu().float().eval()
    encoder = EncoderGraph(model).eval()
    n_symbols = Dim("T_text", min=2, max=100_000)
    text_axis = {1: n_symbols}
    state_axes = {name: ({2: n_symbols} if name == "weights" else None) for name in STATE}
    return {
        "encoder": _graph(
            encoder,
            "encoder",
            traced=traceable(encoder),
            inputs=[_text_inputs(model, n) for n in (TRACED_SYMBOLS, COMPARED_SYMBOLS)],
            outputs=["memory", "keys"],
            axes={"text": text_axis, "speaker": None},
        ),
        "decoder_step": _graph(
            DecoderStepGraph(model).eval(),
            "decoder step",
            inputs=[_step_inputs(model, encoder, n) for n in (TRACED_SYMBOLS, COMPARED_SYMBOLS)],
            outputs=["frames", "gate", *(f"next_{name}" for name in STATE[1:])],
            axes={"memory": text_axis, "keys": text_axis, "masks": None, **state_axes},
        ),
        "postnet": _graph(
            PostnetGraph(model).eval(),
            "postnet",
            inputs=[{"mel": _noise(1, model.decoder.n_mels, n)} for n in (TRACED_FRAMES, COMPARED_FRAMES)],
            outputs=["refined"],
            axes={"mel": {2: Dim("T_mel", min=2, max=1_000_000)}},
        ),
    }


def _noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def _text_inputs(model: Tacotron2, n: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(n)
    text = torch.randint(model.embedding.num_embeddings, (1, n), generator=generator)
    return {"text": text} if model.speaker_embedding is None else {"text": text, "speaker": torch.zeros(1).long()}


def _step_inputs(model: Tacotron2, encoder: EncoderGraph, n: int) -> dict[str, Tensor]:
    memory, keys = encoder(**_text_inputs(model, n))
    decoder = model.decoder
    D, E = decoder.attention_rnn.hidden_size, memory.size(2)
    width = decoder.prenet.weights[0].size(0)
    weights = torch.softmax(_noise(1, 2, n), 2)
    spoken = decoder.decoder_rnn.hidden_size
    state = [_noise(1, decoder.n_mels), *(_noise(1, size).tanh() for size in (D, D, E)), weights]
    state += [_noise(1, spoken).tanh(), _noise(1, spoken)]
    masks = 2.0 * (_noise(2, 1, width) > 0)
    return {"memory": memory, "keys": keys, "masks": masks, **dict(zip(STATE, state, strict=True))}


def _graph(
    module: nn.Module,
    name: str,
    *,
    inputs: Sequence[dict[str, Tensor]],
    outputs: list[str],
    axes: dict[str, dict[int, Dim] | None],
    traced: nn.Module | None = None,
) -> Graph:
    """inputs: to trace with, and to compare on. traced: what is traced in the place of the module."""
    example, compared = inputs
    # first without the exporter, which would take a graph with frozen lengths for better than none
    program = torch.export.export(traced or module, (), example, dynamic_shapes={key: axes[key] for key in example})
    with quiet_exporter():
        written = torch.onnx.export(
            program, input_names=list(example), output_names=outputs, opset_version=OPSET, dynamo=True, verbose=False
        )
    assert written is not None
    content = written.model_proto.SerializeToString()
    difference = largest_difference(module, content, compared)
    if not difference <= LARGEST_DIFFERENCE:
        raise UserError(
            f"nothing written: onnxruntime's {name} differs from torch's by {difference:.1e}, more than "
            f"{LARGEST_DIFFERENCE:g}; use the versions of requirements-export.txt"
        )
    return Graph(content, difference)


def largest_difference(module: nn.Module, content: bytes, inputs: dict[str, Tensor]) -> float:
    """Over all outputs."""
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    there: list[Any] = session.run(None, {key: value.numpy() for key, value in inputs.items()})
    here = module(**inputs)
    pairs = zip(here if isinstance(here, tuple) else (here,), there, strict=True)
    return max(float((a - torch.from_numpy(b)).abs().max()) for a, b in pairs)
