"""Recordings and mels: read, write, resample, trim; log-mel spectrogram and its inverse.

The mel is the one NVIDIA/tacotron2 trains on, so that its checkpoints and vocoders fit: magnitude (not power)
STFT, periodic Hann window, frames centred with reflected edges, Slaney filterbank, natural log with a floor of 1e-5.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import soundfile
import soxr

from common.errors import DataError
from common.files import write_atomic
from common.log import LOG
from hparams import AudioParams

INT16_FULL_SCALE = 32768.0


@dataclass(frozen=True)
class AudioInfo:
    """What the header of a recording says; n_samples counts one channel."""

    sampling_rate: int
    channels: int
    n_samples: int
    duration_s: float


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
                f"or train with --hparams resample=True or --hparams sampling_rate={rate}"
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
    pcm = pcm16(wav, name=str(path))
    # encoded in memory: libsndfile would report a full disk as something else
    encoded = BytesIO()
    soundfile.write(encoded, pcm, sampling_rate, format="WAV", subtype="PCM_16")
    write_atomic(path, encoded.getvalue())


def pcm16(wav: np.ndarray, *, name: str) -> np.ndarray:
    """float32 [L] -> int16 [L]. Clips beyond [-1, 1] with a warning; DataError if wav holds NaN or infinity."""
    assert wav.ndim == 1, f"expected [L], got shape {wav.shape}"
    if not np.isfinite(wav).all():
        raise DataError(f"{name} not written: the signal holds NaN or infinity; the model that made it has diverged")
    n_clipped = int(np.count_nonzero(np.abs(wav) > 1.0))
    if n_clipped:
        said = "%s: %d samples were too loud and are clipped (peak %.3f times full scale)"
        LOG.warning(said, name, n_clipped, np.abs(wav).max())
    # 32768 here as in reading, so that a recording read and written again keeps every bit
    return np.clip(np.rint(wav * INT16_FULL_SCALE), -INT16_FULL_SCALE, INT16_FULL_SCALE - 1).astype(np.int16)


def trim_silence(
    wav: np.ndarray,
    *,
    sampling_rate: int,
    threshold_db: float = -40.0,
    frame: int = 110,
    keep_before_s: float = 0.010,
    keep_after_s: float = 0.030,
) -> np.ndarray:
    """Cut the quiet ends of [L]: a view of wav, see `loud_part`."""
    part = loud_part(
        wav, sampling_rate=sampling_rate, threshold_db=threshold_db, frame=frame, keep_before_s=keep_before_s,
        keep_after_s=keep_after_s,
    )  # fmt: skip
    return wav[part]


def loud_part(
    wav: np.ndarray,
    *,
    sampling_rate: int,
    threshold_db: float = -40.0,
    frame: int = 110,
    keep_before_s: float = 0.010,
    keep_after_s: float = 0.030,
) -> slice:
    """The samples of [L] from the first to the last frame that is loud enough.

    Loud enough means an RMS over threshold_db (negative) relative to the loudest frame; frame is in samples (110 are
    5 ms at 22050 Hz). keep_before_s and keep_after_s are rounded to whole frames. Digital silence, and what is shorter
    than a frame, comes back uncut.
    """
    n_frames = len(wav) // frame
    if n_frames == 0 or not np.any(wav):
        return slice(0, len(wav))
    rms = np.sqrt(np.mean(np.square(wav[: n_frames * frame].reshape(n_frames, frame), dtype=np.float64), axis=1))
    loud = np.flatnonzero(rms > rms.max() * 10.0 ** (threshold_db / 20.0))
    if not len(loud):
        return slice(0, len(wav))
    first = loud[0] - round(keep_before_s * sampling_rate / frame)
    end = loud[-1] + 1 + round(keep_after_s * sampling_rate / frame)
    return slice(max(0, first * frame), min(len(wav), end * frame))


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
