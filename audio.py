"""Recordings and mels: read, write, resample, trim; log-mel spectrogram and its inverse.

The mel is the one NVIDIA/tacotron2 trains on, so that its checkpoints and vocoders fit: magnitude (not power)
STFT, periodic Hann window, frames centred with reflected edges, Slaney filterbank, natural log with a floor of 1e-5.
"""

import hashlib
import json
import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any, Self

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor

from errors import DataError
from files import write_atomic
from hparams import AudioParams

MEL_FLOOR = 1e-5  # magnitude under which a mel counts as silence; part of what vocoders were trained on
MEL_FORMAT_VERSION = 1  # raise when the mel of the same parameters changes

INT16_FULL_SCALE = 32768.0
MEL_INVERSE_UPDATES = 60  # largest error of the inverse on voices: 0.3 after 30, 0.03 after 60 (log-mel)
FRAMES_AT_ONCE = 128  # their megabyte stays in the cache, and two threads have enough to share
TINY = 1e-12  # keeps quotients of magnitudes finite, far under MEL_FLOOR

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AudioInfo:
    """What the header of a recording says; n_samples counts one channel."""

    sampling_rate: int
    channels: int
    n_samples: int
    duration_s: float


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

    def differences(self, other: "MelFingerprint") -> list[str]:
        """One line for each field that differs, in the order of declaration; empty if the mels agree."""
        there = other.to_dict()
        return [
            f"{name}: {value} here, {there[name]} there"
            for name, value in self.to_dict().items()
            if value != there[name]
        ]


def probe_audio(path: Path) -> AudioInfo:
    """Rate, channels and length from the header, without decoding.

    Raises DataError if the file is missing, unreadable, of an unknown format, or holds no samples.
    """
    with _opened(path) as recording:
        return AudioInfo(
            sampling_rate=recording.samplerate,
            channels=recording.channels,
            n_samples=recording.frames,
            duration_s=recording.frames / recording.samplerate,
        )


def read_audio(path: Path, audio: AudioParams) -> np.ndarray:
    """A recording as float32 [L], mono, at audio.sampling_rate.

    Any format of libsndfile. Integer formats are scaled to [-1, 1] by their full scale, float is taken as it is.
    audio.max_wav_value is the divisor of 16-bit integers only: 32768 is neutral, a smaller value makes 16-bit
    recordings louder (and may take them over 1). Channels are averaged; another rate is resampled by soxr (VHQ).

    Raises DataError, with the path and what to do, if the file is missing, unreadable, damaged or empty, if it holds
    NaN or infinity, or if its rate differs and audio.resample is off. A FLAC or MP3 that was cut short is an error; a
    WAV or Ogg that was cut short reads as a shorter recording.
    """
    with _opened(path) as recording:
        rate = recording.samplerate
        if rate != audio.sampling_rate and not audio.resample:
            raise DataError(
                f"{path} is {rate} Hz but sampling_rate={audio.sampling_rate} and resample=False; resample the file, "
                f"or pass --hparams resample=True or --hparams sampling_rate={rate}"
            )
        samples = _decode(recording, path)  # [L, channels]
        is_int16 = recording.subtype == "PCM_16"
    n_bad = samples.size - int(np.count_nonzero(np.isfinite(samples)))
    if n_bad:
        raise DataError(f"{path} holds {n_bad} samples that are NaN or infinite; export it again or drop it")
    wav = samples.mean(axis=1)  # [L]
    if is_int16 and audio.max_wav_value != INT16_FULL_SCALE:
        wav = wav * np.float32(INT16_FULL_SCALE / audio.max_wav_value)
    if rate != audio.sampling_rate:
        wav = soxr.resample(wav, rate, audio.sampling_rate, quality="VHQ")
        if not len(wav):
            raise DataError(f"{path} is too short to resample from {rate} Hz to {audio.sampling_rate} Hz; drop it")
    return wav


def write_wav(path: Path, wav: np.ndarray, sampling_rate: int) -> None:
    """Write [L] as 16-bit PCM; the file appears whole or not at all.

    Samples beyond [-1, 1] are clipped, and one warning is logged with their count and the peak.
    Raises DataError if wav holds NaN or infinity, OSError if the disk refuses.
    """
    assert wav.ndim == 1, f"expected [L], got shape {wav.shape}"
    if not np.isfinite(wav).all():
        raise DataError(f"{path} not written: the signal holds NaN or infinity; the model that made it has diverged")
    n_clipped = int(np.count_nonzero(np.abs(wav) > 1.0))
    if n_clipped:
        logger.warning("path=%s clipped_samples=%d peak=%.3f", path, n_clipped, np.abs(wav).max())
    # 32768 here as in reading, so that a recording read and written again keeps every bit
    pcm = np.clip(np.rint(wav * INT16_FULL_SCALE), -INT16_FULL_SCALE, INT16_FULL_SCALE - 1).astype(np.int16)
    # encoded in memory: libsndfile would report a full disk as something else
    encoded = BytesIO()
    soundfile.write(encoded, pcm, sampling_rate, format="WAV", subtype="PCM_16")
    write_atomic(path, encoded.getvalue())


def trim_silence(
    wav: np.ndarray,
    *,
    sampling_rate: int,
    threshold_db: float = -40.0,
    frame: int = 110,
    keep_before_s: float = 0.010,
    keep_after_s: float = 0.030,
) -> np.ndarray:
    """Cut the quiet ends of [L]: a view of wav from the first to the last frame that is loud enough.

    Loud enough means an RMS over threshold_db (negative) relative to the loudest frame; frame is in samples (110 are
    5 ms at 22050 Hz). keep_before_s and keep_after_s are rounded to whole frames. Digital silence, and what is shorter
    than a frame, comes back uncut.
    """
    n_frames = len(wav) // frame
    if n_frames == 0 or not np.any(wav):
        return wav
    rms = np.sqrt(np.mean(np.square(wav[: n_frames * frame].reshape(n_frames, frame), dtype=np.float64), axis=1))
    loud = np.flatnonzero(rms > rms.max() * 10.0 ** (threshold_db / 20.0))
    if not len(loud):
        return wav
    first = loud[0] - round(keep_before_s * sampling_rate / frame)
    end = loud[-1] + 1 + round(keep_after_s * sampling_rate / frame)
    return wav[max(0, first * frame) : end * frame]


@contextmanager
def _opened(path: Path) -> Iterator[soundfile.SoundFile]:
    """The open recording; what is wrong with the file as a whole becomes a DataError."""
    if not path.is_file():
        raise DataError(f"{path} is no file; correct the path in the filelist, or restore the recording")
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty (0 bytes); restore it, or drop it from the filelist")
    try:
        recording = soundfile.SoundFile(path)
    except (soundfile.LibsndfileError, TypeError) as e:  # TypeError: headerless .raw
        raise DataError(f"{path} can't be read as audio ({e}); convert it to WAV or FLAC, or drop it") from e
    with recording:
        if recording.frames == 0:
            raise DataError(f"{path} has a header but no samples; restore it, or drop it from the filelist")
        yield recording


def _decode(recording: soundfile.SoundFile, path: Path) -> np.ndarray:
    """All samples as float32 [L, channels]; DataError if the data end before the header's count."""
    expected = recording.frames
    try:
        samples = recording.read(dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as e:
        raise DataError(f"{path} is damaged ({e}); restore it, or drop it from the filelist") from e
    if len(samples) < expected:
        raise DataError(
            f"{path} is truncated: {len(samples)} of {expected} samples; restore it, or drop it from the filelist"
        )
    return samples


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


@torch.no_grad()
def griffin_lim(
    log_mel: Tensor, audio: AudioParams, *, n_iter: int = 60, momentum: float = 0.99, seed: int = 0
) -> Tensor:
    """A signal whose mel is close to log_mel: [n_mels, T_mel] -> float32 [L], L = (T_mel - 1) * hop, |x| <= 1.

    Fast Griffin-Lim (Perraudin, Balazs, Sondergaard 2013) on the magnitude of mel_to_magnitude, from random phases:
    the same seed gives the same bits on CPU. One frame gives hop samples. The signal is scaled only if it would clip.
    NaN in log_mel comes out as NaN, which write_wav refuses.
    """
    n_mels, n_frames = log_mel.shape
    assert n_mels == audio.n_mel_channels, f"{n_mels} channels, but n_mel_channels={audio.n_mel_channels}"
    n_samples = max(n_frames - 1, 1) * audio.hop_length
    with torch.autocast(log_mel.device.type, enabled=False):
        magnitude = mel_to_magnitude(_lengthened(log_mel.float(), audio), audio)  # [n_bins, T]
        wav = _phases_to_wav(magnitude, audio, n_iter=n_iter, momentum=momentum, seed=seed)
    wav = wav[:n_samples]
    return wav / wav.abs().max().clamp(min=1.0)


def mel_to_magnitude(log_mel: Tensor, audio: AudioParams) -> Tensor:
    """The non-negative magnitudes whose mel is closest: [n_mels, T_mel] -> [filter_length / 2 + 1, T_mel].

    Multiplicative updates for the Kullback-Leibler divergence (Lee and Seung 2001, theorem 2): quiet channels count in
    proportion, as they do for the ear. Bins that no mel channel sees are 0.
    """
    basis = _basis_for(audio, log_mel.device)  # [n_mels, n_bins]
    mel = log_mel.exp()  # [n_mels, T_mel]
    weight = basis.sum(dim=0).unsqueeze(1) + TINY  # [n_bins, 1]
    magnitude = basis.T @ mel / weight  # [n_bins, T_mel]
    for _ in range(MEL_INVERSE_UPDATES):
        ratio = mel / (basis @ magnitude + TINY)
        magnitude = magnitude * (basis.T @ ratio) / weight
    n_unseen = audio.filter_length // 2 + 1 - len(magnitude)
    return torch.nn.functional.pad(magnitude, (0, 0, 0, n_unseen))


def _lengthened(log_mel: Tensor, audio: AudioParams) -> Tensor:
    """log_mel followed by silence if it is too short for the STFT to reflect its edges."""
    n_least = audio.filter_length // 2 // audio.hop_length + 2
    lacking = max(0, n_least - log_mel.shape[1])
    return torch.nn.functional.pad(log_mel, (0, lacking), value=silence_log_mel())


def _phases_to_wav(magnitude: Tensor, audio: AudioParams, *, n_iter: int, momentum: float, seed: int) -> Tensor:
    """[filter_length / 2 + 1, T] -> [(T - 1) * hop]."""
    window = _hann(audio.filter_length, audio.win_length, magnitude.device)

    def to_wav(spectrum: Tensor) -> Tensor:
        return torch.istft(spectrum, audio.filter_length, audio.hop_length, window=window)

    # drawn on the CPU, so that a seed means the same phases on every device
    random = torch.rand(magnitude.shape, generator=torch.Generator().manual_seed(seed)).to(magnitude.device)
    spectrum = torch.polar(magnitude, 2 * math.pi * random)
    previous = torch.zeros_like(spectrum)
    inertia = momentum / (1 + momentum)  # t + a (t - t_previous) up to the scale, which the phase ignores
    for _ in range(n_iter):
        consistent = torch.stft(
            to_wav(spectrum), audio.filter_length, audio.hop_length, window=window, return_complex=True
        )
        ahead = consistent - inertia * previous
        spectrum = ahead * (magnitude / (ahead.abs() + TINY))
        previous = consistent
    return to_wav(spectrum)
