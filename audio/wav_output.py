"""Sound written as it is made: to a file that appears whole or not at all, or into a pipe."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol

import numpy as np

from audio.recordings import pcm16
from common.files import atomic_file

LARGEST = 0xFFFFFFFF  # bytes that a header can tell, and what it says of a pipe; players then read on to the end
HEADER_BYTES, SAMPLE_BYTES = 36, 2


class SoundOutput(Protocol):
    """Takes float32 [L] in [-1, 1], again and again. DataError if it holds NaN or infinity."""

    def write(self, wav: np.ndarray) -> None: ...


class WavFile:
    """16-bit PCM, one channel; `wav_file` opens one."""

    def __init__(self, file: IO[bytes], path: Path, sampling_rate: int) -> None:
        self._file, self._path, self._rate, self._n_bytes = file, path, sampling_rate, 0
        file.write(wav_header(sampling_rate, n_bytes=0))

    def write(self, wav: np.ndarray) -> None:
        """Also OSError if the disk refuses."""
        self._n_bytes += self._file.write(pcm16(wav, name=str(self._path)).astype("<i2").tobytes())

    def finish(self) -> None:
        """The header learns how long it has become."""
        self._file.seek(0)
        self._file.write(wav_header(self._rate, n_bytes=self._n_bytes))


@contextmanager
def wav_file(path: Path, sampling_rate: int) -> Iterator[WavFile]:
    """A wav to write piece by piece. If anything is raised inside, an old file stays and no new one appears."""
    with atomic_file(path) as file:
        output = WavFile(file, path, sampling_rate)
        yield output
        output.finish()


class WavPipe:
    """16-bit PCM into a pipe as it comes; with a header unless raw."""

    def __init__(self, file: IO[bytes], sampling_rate: int, *, is_raw: bool) -> None:
        self._file = file
        if not is_raw:
            file.write(wav_header(sampling_rate, n_bytes=LARGEST))

    def write(self, wav: np.ndarray) -> None:
        self._file.write(pcm16(wav, name="standard output").astype("<i2").tobytes())
        self._file.flush()


def wav_header(sampling_rate: int, *, n_bytes: int) -> bytes:
    """Of a wav with one 16-bit channel and so many bytes of samples."""
    layout = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, sampling_rate, sampling_rate * SAMPLE_BYTES, SAMPLE_BYTES, 16)
    whole = min(n_bytes + HEADER_BYTES, LARGEST)
    return struct.pack("<4sI4s", b"RIFF", whole, b"WAVE") + layout + struct.pack("<4sI", b"data", min(n_bytes, LARGEST))
