"""Log-mel spectrograms, and the fingerprint of the settings that made them."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from common.errors import DataError, UserError
from hparams import AudioParams

MEL_FLOOR = 1e-5  # magnitude under which a mel counts as silence; part of what vocoders were trained on
MEL_FORMAT_VERSION = 1  # raise when the mel of the same parameters changes
FRAMES_AT_ONCE = 128  # their megabyte stays in the cache, and two threads have enough to share


@dataclass(frozen=True)
class MelFingerprint:
    """Everything that shapes a mel: two mels may be mixed only if their fingerprints are equal."""

    format_version: int
    max_wav_value: float
    sampling_rate: int
    filter_length: int
    hop_length: int
    win_length: int
    n_mel_channels: int
    mel_fmin: float
    mel_fmax: float

    @classmethod
    def of(cls, audio: AudioParams) -> Self:
        """The fingerprint of mels made now with these parameters."""
        names = [field.name for field in fields(cls) if field.name != "format_version"]
        return cls.from_dict({"format_version": MEL_FORMAT_VERSION} | {name: getattr(audio, name) for name in names})

    @classmethod
    def from_dict(cls, values: Mapping[str, int | float]) -> Self:
        """The inverse of to_dict; DataError if a field is missing or unknown (another program's or a newer file)."""
        types = {field.name: field.type for field in fields(cls)}
        problems = [f"no {name}" for name in types if name not in values]
        problems += [f"unknown {name}" for name in values if name not in types]
        if problems:
            raise DataError(
                f"mel fingerprint not understood: {', '.join(problems)}; compute the mels anew with this version"
            )
        # 8000 and 8000.0 are one setting, so they need one digest
        typed: dict[str, Any] = {
            name: float(values[name]) if kind is float else int(values[name]) for name, kind in types.items()
        }
        return cls(**typed)

    def to_dict(self) -> dict[str, int | float]:
        """Plain types, for JSON, YAML and checkpoints."""
        return asdict(self)

    @property
    def digest(self) -> str:
        """16 hex digits that name this fingerprint, e.g. in the file name of a cache."""
        canonical = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode("ascii")).hexdigest()[:16]

    def differences(self, there: Mapping[str, Any]) -> list[str]:
        """One line for each field that differs; empty if the mels agree. there: a `to_dict`, of whatever version."""
        here = self.to_dict()
        return [
            f"{name}: {here.get(name)} here, {there.get(name)} there"
            for name in {**here, **there}
            if here.get(name) != there.get(name)
        ]


def require_known_format(mel_fingerprint: Mapping[str, Any], *, where: Path) -> None:
    """UserError where mels are of another format version: their numbers mean something else."""
    found = mel_fingerprint.get("format_version", MEL_FORMAT_VERSION)
    if found != MEL_FORMAT_VERSION:
        raise UserError(
            f"{where} has mels of format version {found}, and this trainer has version {MEL_FORMAT_VERSION}; use the "
            "trainer that made it, or begin a new voice with train.py --warm-start"
        )


def silence_log_mel() -> float:
    """The log-mel of digital silence, in every channel: ln(1e-5)."""
    return math.log(MEL_FLOOR)


def mel_spectrogram(wav: Tensor, audio: AudioParams) -> Tensor:
    """Natural log of the magnitude mel, floored at 1e-5: [..., L] -> [..., n_mels, T_mel], T_mel = L // hop + 1.

    Frame t is centred on sample t * hop, the edges are reflected. A signal too short to reflect (at most half of
    filter_length) is first extended by zeros on the right; the number of frames stays L // hop + 1. Returns float32 on
    wav's device, under autocast too.
    """
    n_samples = wav.shape[-1]
    assert n_samples > 0, "no samples"
    basis = _basis_for(audio, wav.device)  # [n_mels, n_bins]
    window = _hann(audio.filter_length, audio.win_length, wav.device)  # [n_fft]
    with torch.autocast(wav.device.type, enabled=False):
        # float64 up to the magnitude: in float32 a channel near the floor beside loud ones is off by 1e-3 to 1e-2
        padded = _reflect(wav.double(), pad=audio.filter_length // 2)
        frames = padded.unfold(-1, audio.filter_length, audio.hop_length)  # [..., T, n_fft]
        frames = frames[..., : n_samples // audio.hop_length + 1, :]  # [..., T_mel, n_fft]
        runs = frames.split(FRAMES_AT_ONCE, dim=-2)
        magnitude = torch.cat([_magnitude(run * window, basis.shape[1]) for run in runs], dim=-2)
        mel = basis @ magnitude.transpose(-1, -2)  # [..., n_mels, T_mel]
        return mel.clamp(min=MEL_FLOOR).log()


def _magnitude(frames: Tensor, n_bins: int) -> Tensor:
    """[..., T, n_fft] float64 -> float32 [..., T, n_bins]: bins over mel_fmax have no weight, so they are left out."""
    parts = torch.view_as_real(torch.fft.rfft(frames)[..., :n_bins]).float()
    if parts.requires_grad:  # the gradient of the root below is infinite in silence
        return torch.linalg.vector_norm(parts, dim=-1)
    # a third of the time of abs, which guards against squares that overflow
    squares = parts.square_()
    return (squares[..., 0] + squares[..., 1]).sqrt_()


def _reflect(wav: Tensor, *, pad: int) -> Tensor:
    """[..., L] -> [..., max(L, pad + 1) + 2 pad]."""
    lacking = max(0, pad + 1 - wav.shape[-1])
    flat = torch.nn.functional.pad(wav.reshape(1, -1, wav.shape[-1]), (0, lacking))  # reflect wants 2 or 3 dimensions
    padded = torch.nn.functional.pad(flat, (pad, pad), mode="reflect")
    return padded.reshape(*wav.shape[:-1], -1)


def mel_basis(audio: AudioParams) -> Tensor:
    """The filterbank [n_mels, n_bins], cut after the last bin that has a weight."""
    return _basis_for(audio, torch.device("cpu"))


def _basis_for(audio: AudioParams, device: torch.device) -> Tensor:
    return _mel_basis(
        audio.sampling_rate, audio.filter_length, audio.n_mel_channels, audio.mel_fmin, audio.mel_fmax, device
    )


@lru_cache(maxsize=16)
def _mel_basis(rate: int, n_fft: int, n_mels: int, fmin: float, fmax: float, device: torch.device) -> Tensor:
    """Slaney filterbank [n_mels, n_bins], cut after the last bin that has a weight."""
    from librosa.filters import mel as slaney_mel  # seconds to import, needed once

    basis = slaney_mel(sr=rate, n_fft=n_fft, n_mels=n_mels, fmin=fmin, fmax=fmax)
    n_bins = int(np.flatnonzero(basis.any(axis=0))[-1]) + 1
    # an inference tensor in the cache would break a later caller's backward
    with torch.inference_mode(False):
        return torch.from_numpy(np.ascontiguousarray(basis[:, :n_bins])).to(device)


@lru_cache(maxsize=16)
def _hann(n_fft: int, win_length: int, device: torch.device) -> Tensor:
    """Periodic Hann window of win_length, centred in [n_fft]."""
    left = (n_fft - win_length) // 2
    with torch.inference_mode(False):
        window = torch.hann_window(win_length, periodic=True, dtype=torch.float64).float()
        return torch.nn.functional.pad(window, (left, n_fft - win_length - left)).to(device)
