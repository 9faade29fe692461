"""A generator as an ONNX file, for players without torch. Needs onnx, onnxscript and onnxruntime."""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from common.errors import UserError
from speech.vocoders.generator import Generator
from speech.vocoders.vocoder import NeuralVocoder

# an LSTM's list of its own weights, and one name for two axes of the same length
EXPECTED_WARNINGS = ("The tensor attributes .* were assigned during export", "# The axis name")
LARGEST_DIFFERENCE = 1e-4  # between onnxruntime and torch, of sound in [-1, 1]
TRACED_FRAMES, COMPARED_FRAMES = 40, 67  # neither divides the other: a length that was frozen in tracing shows


def export_graph(vocoder: NeuralVocoder, path: Path) -> tuple[bytes, float]:
    """ONNX bytes for a file at `path`, and the largest difference from torch in sound from -1 to 1.

    Its input is "mel" [batch, n_mels, frames], its output "sound" [batch, frames * hop_length]. `metadata` tells a
    player how to use it: the first `first_centre` samples come before frame 0's centre, and `reach_frames` of mel must
    be known on both sides of a chunk. UserError if the sounds differ by more than 1e-4.
    """
    content = _exported(vocoder.generator, metadata(vocoder))
    difference = _largest_difference(vocoder.generator, content)
    if not difference <= LARGEST_DIFFERENCE:
        raise UserError(
            f"{path} not written: onnxruntime's sound differs from torch's by {difference:.1e}, more than "
            f"{LARGEST_DIFFERENCE:g}; use the versions of requirements-export.txt"
        )
    return content, difference


def metadata(vocoder: NeuralVocoder) -> dict[str, str]:
    """The ONNX file's metadata properties; `mel` is the whole mel format as JSON."""
    mel, reach = vocoder.generator.config.mel, vocoder.generator.reach
    return {
        "sampling_rate": str(mel.sampling_rate),
        "hop_length": str(mel.hop_length),
        "first_centre": str(mel.first_centre),
        "reach_frames": str(max(reach.before, reach.after)),
        "mel": json.dumps(asdict(mel), sort_keys=True),
    }


class _WholeMel(nn.Module):
    """The generator without its second argument, which ONNX has no type for."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, mel: Tensor) -> Tensor:
        return self.generator(mel)


def _exported(generator: Generator, properties: dict[str, str]) -> bytes:
    example = torch.zeros(2, generator.config.num_mels, TRACED_FRAMES)
    with quiet_exporter():
        program = torch.onnx.export(
            _WholeMel(generator).eval(),
            (example,),
            input_names=["mel"],
            output_names=["sound"],
            dynamic_shapes={"mel": {0: "batch", 2: "frames"}},
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props.update(properties)
    return program.model_proto.SerializeToString()


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Neither what torch warns itself of, nor that torchvision's operators are absent, is news to a user."""
    registry = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = registry.level
    registry.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for category in (FutureWarning, DeprecationWarning):
                warnings.simplefilter("ignore", category)
            for message in EXPECTED_WARNINGS:
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        registry.setLevel(level)


@torch.no_grad()
def _largest_difference(generator: Generator, content: bytes) -> float:
    import onnxruntime

    noise = torch.randn(1, generator.config.num_mels, COMPARED_FRAMES, generator=torch.Generator().manual_seed(0))
    mel = 2 * noise - 4  # about the mean and deviation of speech
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (sound,) = session.run(["sound"], {"mel": mel.numpy()})
    return float((torch.from_numpy(sound) - generator(mel)).abs().max())
