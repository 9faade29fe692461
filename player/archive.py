"""The archive of a voice as ONNX: a zip of a few files whose names are known beforehand, none of them compressed.

    voice.json          symbols, front end, mel, limits of length, card
    encoder.onnx        text [1, T_text], speaker [1]              -> memory, keys
    decoder_step.onnx   one step of the decoder
    postnet.onnx        mel [1, n_mels, T_mel]                     -> the same, refined
    vocoder.onnx        mel [batch, n_mels, frames]                -> sound; missing where Griffin-Lim speaks
    mel_basis.npy       [n_mels, n_bins], for Griffin-Lim
"""

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UserError
from common.files import atomic_file, has_no_end

FORMAT = "tacotron2 onnx voice"
VERSION = 1
DESCRIPTION, BASIS = "voice.json", "mel_basis.npy"
GRAPHS = ("encoder", "decoder_step", "postnet")
VOCODER = "vocoder"
LARGEST_BYTES = 2 * 1024**3  # of all files together: an archive that claims more is none of ours


@dataclass(frozen=True)
class Description:
    """Plain data beside the graphs. vocoder: {"first_centre": N} of a neural one, None for Griffin-Lim."""

    front_end: Mapping[str, Any]
    speakers: list[str]
    sampling_rate: int
    filter_length: int
    hop_length: int
    win_length: int
    mel_mean: float
    mel_std: float
    frames_per_step: int
    prenet_dim: int
    prenet_dropout: float
    widths: Mapping[str, int]  # of the decoder's state: attention_rnn, decoder_rnn, encoder
    starts_on_first_symbol: bool
    max_frames: int
    frames_per_symbol: float
    budget_offset: int
    dwell_frames: int
    gate_threshold: float
    longest_text: int | None = None
    vocoder: Mapping[str, int] | None = None
    mel_fingerprint: Mapping[str, Any] = field(default_factory=dict)
    card: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Archive:
    """graphs: ONNX files by name, vocoder among them where there is one."""

    description: Description
    graphs: Mapping[str, bytes]
    mel_basis: np.ndarray  # [n_mels, n_bins]


def write_archive(path: Path, archive: Archive) -> int:
    """-> bytes. OSError from the disk."""
    basis = io.BytesIO()
    np.save(basis, archive.mel_basis, allow_pickle=False)
    kept = {"format": FORMAT, "version": VERSION, **vars(archive.description)}
    files = {f"{name}.onnx": content for name, content in archive.graphs.items()}
    files |= {DESCRIPTION: json.dumps(kept, sort_keys=True).encode("ascii"), BASIS: basis.getvalue()}
    with atomic_file(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as written:
        for name, content in sorted(files.items()):
            written.writestr(zipfile.ZipInfo(name), content)  # no date: the same voice makes the same bytes
    return path.stat().st_size


def read_archive(path: Path) -> Archive:
    """UserError if it is none, is damaged or of another version. Nothing is written, and no other file is read."""
    if has_no_end(path):
        raise UserError(f"{path} is a pipe or a device, and no file; name a .zip that export.py wrote")
    try:
        with zipfile.ZipFile(path) as file:
            _check_sizes(file, path)
            description = _description(json.loads(file.read(DESCRIPTION)), path)
            names = (*GRAPHS, VOCODER) if description.vocoder is not None else GRAPHS
            graphs = {name: file.read(f"{name}.onnx") for name in names}
            basis = np.load(io.BytesIO(file.read(BASIS)), allow_pickle=False)
    except FileNotFoundError:
        raise UserError(f"{path}: no such voice; name a .zip that export.py wrote") from None
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError, EOFError, OSError, NotImplementedError) as error:
        raise UserError(f"{path} is not a readable voice ({error}); name a .zip that export.py wrote") from None
    return Archive(description, graphs, basis)


def _check_sizes(file: zipfile.ZipFile, path: Path) -> None:
    """The sizes are what a reader would unpack, so a bomb is seen before anything of it is."""
    infos = file.infolist()
    if any(info.compress_type != zipfile.ZIP_STORED for info in infos):
        raise UserError(f"{path} holds compressed files, which export.py never writes; it was not opened")
    if sum(info.file_size for info in infos) > LARGEST_BYTES:
        raise UserError(f"{path} says it holds more than {LARGEST_BYTES >> 30} GB; it was not opened")


def _description(kept: Any, path: Path) -> Description:
    if not isinstance(kept, dict) or kept.pop("format", None) != FORMAT:
        raise UserError(f"{path} is a zip, but no voice that export.py wrote")
    if (version := kept.pop("version", None)) != VERSION:
        raise UserError(f"{path} has version {version}, and this program reads {VERSION}; use a newer one")
    return Description(**kept)
