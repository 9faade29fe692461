"""Recordings as files: their samples before any mixing, and whether the file is whole.

The format is told by the content, whatever the extension. libsndfile reads wav, flac, ogg (Vorbis, Opus), mp3, aiff,
au, caf and more; what only an optional decoder reads is in `phone_formats`.
"""

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from common.errors import DataError

LOSSY = frozenset({"VORBIS", "OPUS", "MPEG_LAYER_I", "MPEG_LAYER_II", "MPEG_LAYER_III"})
FLOATS = frozenset({"FLOAT", "DOUBLE"})
MAX_RATE = 768_000  # Hz; beyond the highest that converters have, a header is damaged
MAX_CHANNELS = 64
UNKNOWN_SIZE = 0x7FFF0000  # what programs that write to a pipe announce, or more
TOLERATED_BYTES = 1024  # by which careless programs miscount
OGG_TAIL_BYTES = 1 << 17  # two of the largest pages
_SHORT = re.compile(r"^ *([a-z ]+?) *: (\d+) \(should be (\d+)\)$", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True)
class Recording:
    """What a file holds: samples float32 [channels, n] with full scale 1, and what its header says.

    cut_off: in words how the file shows that its end is missing; None for a whole file.
    """

    samples: np.ndarray
    sampling_rate: int
    container: str
    encoding: str
    cut_off: str | None = None


class UnreadableRecording(DataError):
    """A file that gives no samples; `kind` is a kind of finding."""

    def __init__(self, kind: str, message: str, advice: str) -> None:
        super().__init__(f"{message}; {advice}")
        self.kind, self.message, self.advice = kind, message, advice


def read_recording(path: Path, *, max_s: float = math.inf) -> Recording:
    """The samples of a file; those after max_s are left out.

    Raises UnreadableRecording where there are none: missing, empty, of an unknown format, damaged.
    """
    with _opened(path) as file:
        n_wanted = min(file.frames, int(min(max_s * file.samplerate, 2**62)))
        samples, cut_off = _decoded(file, n_wanted, path)
        cut_off = cut_off or missing_end(path, file.format, file.extra_info)
        return Recording(samples.T, file.samplerate, file.format, file.subtype, cut_off)


@contextmanager
def _opened(path: Path) -> Iterator[soundfile.SoundFile]:
    try:
        size = path.stat().st_size if path.is_file() else None
        file = soundfile.SoundFile(path) if size else None
    except OSError as error:
        raise UnreadableRecording(
            "unreadable", f"{path} can't be read ({error.strerror})", "check its rights"
        ) from error
    except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: headerless .raw
        advice = f"{_guess(path)}convert it to wav or flac, or drop the line"
        raise UnreadableRecording("unreadable", f"{path} is no recording of a known format", advice) from error
    if size is None:
        raise UnreadableRecording("missing file", f"{path} is no file", "correct the path or restore the recording")
    if file is None:
        raise UnreadableRecording("empty", f"{path} is empty (0 bytes)", "restore it or drop the line")
    with file:
        _check_header(file, path)
        yield file


def _check_header(file: soundfile.SoundFile, path: Path) -> None:
    if file.frames <= 0:
        raise UnreadableRecording("empty", f"{path} has a header but no samples", "restore it or drop the line")
    if not 0 < file.samplerate <= MAX_RATE or not 0 < file.channels <= MAX_CHANNELS:
        raise UnreadableRecording(
            "unreadable", f"{path} claims {file.samplerate} Hz and {file.channels} channels", "export it again"
        )


def _decoded(file: soundfile.SoundFile, n_wanted: int, path: Path) -> tuple[np.ndarray, str | None]:
    """[n, channels], and how decoding showed that the end is missing. Reads by pieces: a header may claim anything."""
    pieces: list[np.ndarray] = []
    n_read, piece = 0, 1 << 20
    while n_read < n_wanted:
        try:
            block = file.read(min(piece, n_wanted - n_read), dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise UnreadableRecording(
                "damaged", f"{path} is damaged or cut off", "restore it or drop the line"
            ) from error
        if not len(block):
            break
        pieces.append(block)
        n_read += len(block)
    if not n_read:
        raise UnreadableRecording("damaged", f"{path} has a header but gives no samples", "restore it or drop the line")
    cut_off = f"{n_read} of {n_wanted} samples are there" if n_read < n_wanted else None
    return np.concatenate(pieces) if len(pieces) > 1 else pieces[0], cut_off


def missing_end(path: Path, container: str, header_log: str) -> str | None:
    """How a file shows that its end is missing, where its decoder does not complain; None for a whole file."""
    return _open_ogg(path) if container == "OGG" else _short_chunk(container, header_log)


def _short_chunk(container: str, header_log: str) -> str | None:
    """Of wav and its kin: libsndfile writes down which chunks are longer than the file."""
    for name, announced, there in _SHORT.findall(header_log):
        if container in ("WAV", "WAVEX") and name.lower() != "data":
            continue  # the outermost size counts remarks after the sound too
        if int(announced) < UNKNOWN_SIZE and int(announced) - int(there) > TOLERATED_BYTES:
            return f"its header announces {announced} bytes, {there} are there"
    return None


def _open_ogg(path: Path) -> str | None:
    """Of Ogg: the last page must be whole and marked as the last."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - OGG_TAIL_BYTES))
        tail = file.read()
    start = tail.rfind(b"OggS")
    page = tail[start:]
    if start < 0 or len(page) < 27 or len(page) < 27 + page[26]:
        return "it ends inside a page"
    n_bytes = 27 + page[26] + sum(page[27 : 27 + page[26]])
    if len(page) < n_bytes:
        return f"its last page has {len(page)} of {n_bytes} bytes"
    return None if page[5] & 4 else "its last page is not marked as the end"


def _guess(path: Path) -> str:
    """What a file looks like that is no recording: "" or a sentence."""
    with path.open("rb") as file:
        head = file.read(64)
    lowered = head.lstrip().lower()
    if lowered.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is a web page, a failed download: "
    if lowered.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer: run git lfs pull; else "
    if head[4:8] == b"ftyp":
        return "it is MPEG-4 sound, as phones record: "
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "it is WebM or Matroska: "
    return "it holds text: " if head and all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head) else ""
