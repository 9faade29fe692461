"""Pictures and sounds as data URIs, so that the page is one file. Made once a file while a process lives."""

import io
from base64 import b64encode
from functools import lru_cache
from pathlib import Path

import soundfile
from PIL import Image

LEAST_FLAC_SAMPLES = 16_384  # Chromium 156 shows a FLAC of one frame (4096 samples) but fails to play it
MAX_LOSSLESS_BYTES = 200_000  # FLAC under this, as artefacts are what one listens for; MP3 over it
MP3_COMPRESSION = 0.6  # of 0..1
WEBP_QUALITY = 80
WEBP_METHOD = 1  # of 0..6: later ones take several times the time for a few percent


def picture_uri(path: Path, *, width: int) -> str | None:
    """A PNG as WebP, at most so wide. None if it can't be read: half-written, or gone meanwhile."""
    return _cached("picture", path, width)


def sound_uri(path: Path) -> str | None:
    """A wav as it is, as FLAC, or as MP3 if it is long: all play in every browser. None if it can't be read."""
    return _cached("sound", path, 0)


def _cached(kind: str, path: Path, width: int) -> str | None:
    try:
        status = path.stat()
        return _encoded(kind, path, width, status.st_mtime_ns, status.st_size)
    except (OSError, SyntaxError, ValueError, soundfile.LibsndfileError):  # SyntaxError: what PIL says of a broken PNG
        return None


@lru_cache(maxsize=128)
def _encoded(kind: str, path: Path, width: int, mtime_ns: int, size: int) -> str:
    """The last two are only for the cache: another file under the same name is read anew."""
    return _picture(path, width) if kind == "picture" else _sound(path)


def _picture(path: Path, width: int) -> str:
    with Image.open(path) as image:
        shown = image.convert("RGB")
    if shown.width > width:
        height = round(shown.height * width / shown.width)
        shown = shown.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=2.0)
    encoded = io.BytesIO()
    shown.save(encoded, "WEBP", quality=WEBP_QUALITY, method=WEBP_METHOD)
    return _uri("image/webp", encoded.getvalue())


def _sound(path: Path) -> str:
    samples, rate = soundfile.read(path, dtype="int16")  # [L]
    if len(samples) < LEAST_FLAC_SAMPLES:
        return _uri("audio/wav", path.read_bytes())
    lossless = io.BytesIO()
    soundfile.write(lossless, samples, rate, format="FLAC")
    if len(lossless.getvalue()) <= MAX_LOSSLESS_BYTES:
        return _uri("audio/flac", lossless.getvalue())
    small = io.BytesIO()
    soundfile.write(small, samples, rate, format="MP3", bitrate_mode="VARIABLE", compression_level=MP3_COMPRESSION)
    return _uri("audio/mpeg", small.getvalue())


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{b64encode(content).decode('ascii')}"
