"""Reads a generator's file: only tensors, weight norm folded in, every tensor accounted for."""

import pickle
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.errors import UserError, first_line
from speech.vocoders.foreign_files import pickled_code_reason, reason_to_refuse
from speech.vocoders.generator import Generator
from speech.vocoders.generator_config import CONFIG_NAME, GeneratorConfig

# How weight norm names its two halves: g is the length, v the direction. Before torch 2.0, and since.
LENGTH_AND_DIRECTION = (
    ("weight_g", "weight_v"),
    ("parametrizations.weight.original0", "parametrizations.weight.original1"),
)


def read_generator_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors [...] of the file's "generator", by the authors' names, on the CPU, weight norm not yet folded.

    UserError if there is no such file, if it holds pickled code, is damaged, or is another program's format.
    """
    payload = _read_payload(path)
    reason = reason_to_refuse(payload)
    if reason:
        raise UserError(f"{path}: {reason}")
    tensors = payload["generator"]
    strangers = [name for name, value in tensors.items() if not isinstance(value, Tensor)]
    if strangers:
        raise UserError(f"{path}: not tensors under 'generator': {', '.join(map(str, strangers))}; copy the file anew")
    return dict(tensors)


def _read_payload(path: Path) -> Any:
    if path.is_dir():
        raise UserError(f"{path} is a folder; name the generator's file in it{_candidates(path)}")
    if not path.is_file():
        raise UserError(f"{path}: no such file; --vocoder takes griffin-lim, universal, lj, or a generator's file")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(f"{path}: {pickled_code_reason(str(error))}") from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} can't be read as a PyTorch file ({first_line(error)}); it may be cut short or be of another "
            "format: copy it anew, or take the .pth of HiFi-GAN or the .pt of BigVGAN"
        ) from error


def _candidates(folder: Path) -> str:
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_file() and entry.name != CONFIG_NAME)
    return f": {', '.join(names[:10])}" if names else ", which is empty"


def folded(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors [...] with weight = g * v / |v| for each normed layer, |v| over all dimensions but the first.

    Salimans and Kingma 2016 (arXiv 1602.07868), equation 2. A half without its other half stays as it is.
    """
    result = dict(tensors)
    for length_name, direction_name in LENGTH_AND_DIRECTION:
        for name in tensors:
            layer = name.removesuffix(direction_name)
            length = tensors.get(layer + length_name)
            if layer == name or length is None:
                continue
            direction = result.pop(name)
            del result[layer + length_name]
            norm = direction.norm(dim=tuple(range(1, direction.dim())), keepdim=True)
            result[layer + "weight"] = direction * (length / norm)
    return result


def build_generator(config: GeneratorConfig, tensors: Mapping[str, Tensor], *, path: Path) -> Generator:
    """The network of tensors [...] in float32, in evaluation mode.

    UserError lists each tensor that is missing, strange or misshapen.
    """
    with torch.device("meta"):
        generator = Generator(config)
    weights = folded(tensors)
    problems = list(_mismatches(generator, weights))
    if problems:
        headline = (
            f"{path} does not fit {path.with_name(CONFIG_NAME)} ({len(problems)} problem(s)); put the configuration "
            "beside it that it was trained with"
        )
        raise UserError("\n  ".join([headline, *problems]))
    rows = {name: _row(weights[name], tensor.shape) for name, tensor in generator.state_dict().items()}
    generator.load_state_dict(rows, assign=True)
    return generator.eval().requires_grad_(False)


def _row(tensor: Tensor, shape: torch.Size) -> Tensor:
    """float32; a kernel [out, in, taps] becomes [out, in, 1, taps], in the order of the signals."""
    row = tensor.float().view(shape)
    return row.contiguous(memory_format=torch.channels_last) if row.dim() == 4 else row


def _mismatches(generator: Generator, weights: Mapping[str, Tensor]) -> Iterator[str]:
    expected = {name: _file_shape(tensor) for name, tensor in generator.state_dict().items()}
    for name, shape in expected.items():
        if name not in weights:
            yield f"{name} is missing"
        elif tuple(weights[name].shape) != shape:
            yield f"{name} is {list(weights[name].shape)}, but the configuration makes it {list(shape)}"
        elif not torch.isfinite(weights[name]).all():
            yield f"{name} holds NaN or infinity"
    yield from (f"{name} is not part of such a generator" for name in weights if name not in expected)


def _file_shape(tensor: Tensor) -> tuple[int, ...]:
    """Kernels are rows [out, in, 1, taps] here and [out, in, taps] in the file."""
    shape = tuple(tensor.shape)
    return (*shape[:2], *shape[3:]) if len(shape) == 4 else shape
