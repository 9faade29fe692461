"""Recordings in formats of phones and the web (m4a, aac, webm, wma, mp4, amr), decoded once by an optional package.

PyAV carries FFmpeg's libraries; it comes with faster-whisper.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import soundfile

from common.errors import DataError, UserError
from corpus.recording_files import UnreadableRecording

HINT = "pip install av"


@contextmanager
def readable(path: Path) -> Iterator[Path]:
    """A file of the same sound that libsndfile reads: the file itself, or a decoded copy until the block ends.

    Raises UserError if the decoder is needed and missing, DataError if nothing reads the file.
    """
    if _reads(path):
        yield path
        return
    if find_spec("av") is None:
        raise UserError(f"{path} is in a format of phones or the web; reading it needs the package av: {HINT}")
    with TemporaryDirectory(prefix="decoded-") as folder:
        decoded = Path(folder) / f"{path.stem}.wav"
        decode(path, decoded)
        yield decoded


def _reads(path: Path) -> bool:
    try:
        with soundfile.SoundFile(path):
            return True
    except (soundfile.LibsndfileError, TypeError):
        return False


def decode(path: Path, target: Path) -> None:
    """Writes the first sound track of a file as a wav of floats, at its own rate, with its own channels."""
    import av  # optional and large

    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise UnreadableRecording("unreadable", f"{path} holds no sound", "name a recording")
            _copy_sound(av, container, target)
    except (av.FFmpegError, UnicodeDecodeError, ValueError) as caught:
        raise DataError(f"{path} can't be decoded ({caught}); convert it to wav or flac") from caught
    if not target.is_file():
        raise DataError(f"{path} gives no sound; convert it to wav or flac")


def _copy_sound(av: Any, container: Any, target: Path) -> None:
    stream = container.streams.audio[0]
    resampler = av.AudioResampler(format="flt", layout=stream.layout, rate=stream.rate)
    n_channels = len(stream.layout.channels)
    with soundfile.SoundFile(target, "w", stream.rate, n_channels, subtype="FLOAT", format="RF64") as file:
        for frame in container.decode(stream):
            for part in resampler.resample(frame):
                file.write(part.to_ndarray().reshape(-1, n_channels))
