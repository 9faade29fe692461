"""Recordings that want to break things, each made here with what must be said of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from support.speech_like import RATE, encoded, voice_like


@dataclass(frozen=True)
class BadRecording:
    """A recording and the kinds expected, errors and warnings; () for one that is fine."""

    name: str
    content: Callable[[], bytes]
    kinds: tuple[str, ...]
    suffix: str = ".wav"


def _sound(
    name: str, samples: Callable[[], np.ndarray], *kinds: str, rate: int = RATE, subtype: str = "PCM_16"
) -> BadRecording:
    return BadRecording(name, lambda: encoded(samples(), rate, subtype=subtype), kinds)


def _bytes(name: str, content: Callable[[], bytes], *kinds: str, suffix: str = ".wav") -> BadRecording:
    return BadRecording(name, content, kinds, suffix)


def _noise(level: float, seconds: float = 1.2) -> np.ndarray:
    return level * np.random.default_rng(5).standard_normal(int(seconds * RATE))


def _half(content: bytes, share: float = 0.5) -> bytes:
    return content[: int(len(content) * share)]


def _sized(content: bytes, size: int) -> bytes:
    """A wav whose sizes say something else."""
    four = (size & 0xFFFFFFFF).to_bytes(4, "little")
    return content[:4] + four + content[8:40] + four + content[44:]


def bad_recordings() -> list[BadRecording]:
    return [*_fine(), *_files(), *_levels(), *_channels(), *_timing(), *_bands()]


def _fine() -> list[BadRecording]:
    v = voice_like
    return [
        _sound("16 bits", v),
        _sound("24 bits", v, subtype="PCM_24"),
        _sound("8 bits", v, subtype="PCM_U8"),
        _sound("float", v, subtype="FLOAT"),
        _sound("double", v, subtype="DOUBLE"),
        _sound("mu-law", v, subtype="ULAW"),
        _sound("two equal channels", lambda: np.stack([v()] * 2, 1)),
        _sound("48 kHz", lambda: v(rate=48000), rate=48000),
        _sound("16 kHz", lambda: v(rate=16000), rate=16000),
        _bytes("flac", lambda: encoded(v(), format="FLAC"), suffix=".flac"),
        _bytes("flac called wav", lambda: encoded(v(), format="FLAC")),
        _bytes("ogg vorbis", lambda: encoded(v(), format="OGG", subtype="VORBIS"), suffix=".ogg"),
        _bytes("opus called ogg", lambda: encoded(v(rate=24000), 24000, format="OGG", subtype="OPUS"), suffix=".ogg"),
        _bytes("mp3", lambda: encoded(v(), format="MP3"), suffix=".mp3"),
        _bytes("wav called mp3", lambda: encoded(v()), suffix=".mp3"),
        _bytes("a wav written to a pipe", lambda: _sized(encoded(v()), 0xFFFFFFFF)),
        _bytes(
            "remarks after the sound",
            lambda: encoded(v()) + b"LIST\x1a\x00\x00\x00INFOISFT\x0e\x00\x00\x00Lavf58.29.100\x00",
        ),
    ]


def _files() -> list[BadRecording]:
    v = voice_like
    return [
        _bytes("no bytes", bytes, "empty"),
        _bytes("header alone", lambda: encoded(np.zeros(0)), "empty"),
        _bytes("zeros", lambda: bytes(5000), "unreadable"),
        _bytes("random", lambda: np.random.default_rng(1).bytes(5000), "unreadable"),
        _bytes("text", lambda: b"not a recording at all\n" * 20, "unreadable"),
        _bytes("a web page", lambda: b"<!DOCTYPE html><html>404</html>", "unreadable"),
        _bytes(
            "a Git LFS pointer", lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "unreadable"
        ),
        _bytes("m4a", lambda: b"\0\0\0\x20ftypM4A " + bytes(500), "unreadable"),
        _bytes("a raw stream", lambda: encoded(v())[44:], "unreadable", suffix=".raw"),
        _bytes("wav cut in the middle", lambda: _half(encoded(v())), "cut off"),
        _bytes("wav cut near its end", lambda: _half(encoded(v()), 0.95), "cut off"),
        _bytes("wav that announces 2 GB", lambda: _sized(encoded(v()), 0x7FFE0000), "cut off"),
        _bytes("flac cut in the middle", lambda: _half(encoded(v(), format="FLAC")), "damaged", suffix=".flac"),
        _bytes(
            "ogg cut in the middle",
            lambda: _half(encoded(v(9), format="OGG", subtype="VORBIS")),
            "cut off",
            suffix=".ogg",
        ),
        _bytes("mp3 cut in the middle", lambda: _half(encoded(v(), format="MP3")), "cut off", suffix=".mp3"),
        _bytes("aiff cut in the middle", lambda: _half(encoded(v(), format="AIFF")), "cut off"),
        _bytes("flac with damage inside", lambda: _spoiled(encoded(v(9), format="FLAC")), "damaged", suffix=".flac"),
        _bytes("0 Hz", lambda: encoded(v())[:24] + bytes(4) + encoded(v())[28:], "unreadable"),
        _bytes("4 GHz", lambda: encoded(v())[:24] + b"\xff\xff\xff\xff" + encoded(v())[28:], "unreadable"),
    ]


def _spoiled(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes(3000) + content[middle + 3000 :]


def _levels() -> list[BadRecording]:
    v = voice_like
    return [
        _sound("digital silence", lambda: np.zeros(RATE), "silent"),
        _sound("near silence", lambda: _noise(2e-5), "silent", subtype="FLOAT"),
        _sound("the last bit toggles", lambda: np.sign(_noise(1.0)) / 32768, "silent"),
        _sound("a constant", lambda: np.full(RATE, 0.3), "constant"),
        _sound("speech 80 dB down", lambda: 1e-3 * voice_like(), "silent"),
        _sound("a constant with the last bit", lambda: 0.3 + np.sign(_noise(1.0)) / 32768, "constant"),
        _sound("white noise", lambda: _noise(0.1), "noise alone"),
        _sound("quiet noise", lambda: _noise(0.002), "noise alone"),
        _sound("brown noise", lambda: _brown(), "noise alone|no voice"),
        _sound(
            "noise in gusts",
            lambda: _noise(0.1) * (0.55 + 0.45 * np.sin(np.arange(int(1.2 * RATE)) / RATE * 25)),
            "no voice",
        ),
        _sound("float in integer scale", lambda: v() * 32768, "integer scale", subtype="FLOAT"),
        _sound("float in 24-bit scale", lambda: v() * 2**23, "integer scale", subtype="FLOAT"),
        _sound("float with peaks of 4", lambda: v() / np.abs(v()).max() * 4, "over full scale", subtype="FLOAT"),
        _sound("NaN", lambda: _with_values(np.nan), "not finite", subtype="FLOAT"),
        _sound("infinity", lambda: _with_values(np.inf), "not finite", subtype="FLOAT"),
        _sound("all NaN", lambda: np.full(RATE, np.nan), "not finite", subtype="FLOAT"),
        _sound("huge floats", lambda: v() * 1e30, "integer scale", subtype="FLOAT"),
        _sound("denormal floats", lambda: v() * 1e-40, "silent", subtype="DOUBLE"),
        _sound("clipped", lambda: np.clip(v() * 12, -1, 1), "clipped"),
        _sound("clipped and made quieter", lambda: 0.3 * np.clip(v() * 12, -1, 1), "clipped"),
        _sound("too loud, so it wrapped round", lambda: (v() * 8 + 1) % 2 - 1, "overflow"),
        _sound("too loud by a little", lambda: (v() / np.abs(v()).max() * 1.3 + 1) % 2 - 1, "overflow"),
        _sound("packets lost", lambda: v() * (np.arange(len(v())) // 400 % 4 > 0), "dropouts"),
        _sound("packets lost at a low level", lambda: v() * 0.1 * (np.arange(len(v())) // 400 % 4 > 0), "dropouts"),
        _sound("zeros before sudden sounds, as espeak's stops", _with_stops),
        _sound("zeros between syllables", lambda: np.where(np.abs(v()) < 0.004, 0, v())),
        _sound("very quiet", lambda: v() * 0.008, "quiet", subtype="FLOAT"),
        _sound("off centre", lambda: v() + 0.1, "offset"),
        _sound("in noise", lambda: v() + _noise(0.03), "noisy"),
        _sound(
            "a steady tone", lambda: 0.3 * np.sin(2 * np.pi * 220 * np.arange(RATE) / RATE), "steady", "narrow band"
        ),
    ]


def _brown() -> np.ndarray:
    walk = np.cumsum(np.random.default_rng(2).standard_normal(2 * RATE))
    walk -= np.convolve(walk, np.ones(500) / 500, mode="same")
    return 0.1 * walk / walk.std()


def _with_values(value: float) -> np.ndarray:
    samples = voice_like()
    samples[1000:1010] = value
    return samples


def _with_stops() -> np.ndarray:
    """Sound that fades into zeros and begins again at once."""
    samples = voice_like()
    for first in range(2000, len(samples) - 1000, 4000):
        samples[first : first + 400] *= np.linspace(1, 0, 400)
        samples[first + 400 : first + 1000] = 0
    return samples


def _channels() -> list[BadRecording]:
    v = voice_like
    return [
        _sound("channels cancel", lambda: np.stack([v(), -v()], 1), "channels cancel"),
        _sound("channels nearly cancel", lambda: np.stack([v(), -0.9 * v()], 1), "channels cancel"),
        _sound("two voices, one in each channel", lambda: np.stack([v(), v(pitch=220.0)], 1), "channels differ"),
        _sound("a voice and its echo", lambda: np.stack([v(), np.roll(v(), RATE // 100)], 1), "channels differ"),
        _sound("stereo of a room", lambda: np.stack([v(), 0.8 * v() + 0.2 * v(pitch=141.0)], 1)),
        _sound("one dead channel", lambda: np.stack([v(), 0 * v()], 1), "dead channel"),
        _sound("one dead channel of three", lambda: np.stack([v(), v(), 1e-5 * v()], 1), "dead channel"),
    ]


def _timing() -> list[BadRecording]:
    v = voice_like

    def silent(seconds: float) -> np.ndarray:
        return _noise(1e-4, seconds)

    return [
        _sound("one sample", lambda: np.array([0.5]), "too short"),
        _sound("ten milliseconds", lambda: v(0.01), "too short"),
        _sound("a fifth of a second", lambda: v(0.2), "short"),
        _sound("silence first", lambda: np.concatenate([silent(2), v()]), "leading silence"),
        _sound("zeros first", lambda: np.concatenate([np.zeros(2 * RATE), v()]), "leading silence"),
        _sound("silence last", lambda: np.concatenate([v(), silent(3)]), "trailing silence"),
        _sound("a long pause", lambda: np.concatenate([v(), silent(3), v()]), "long pause"),
        _sound("a minute", lambda: np.tile(v(), 50), "long"),
    ]


def _bands() -> list[BadRecording]:
    return [
        _sound("8 kHz", lambda: voice_like(rate=8000), "narrow band", rate=8000),
        _bytes("8 kHz made 22 kHz", lambda: encoded(_upsampled()), "narrow band"),
        _sound("100 Hz", lambda: np.sin(np.arange(400)), "narrow band", "no voice", rate=100),
    ]


def _upsampled() -> np.ndarray:
    import soxr

    return soxr.resample(voice_like(rate=8000), 8000, RATE)


def kinds_of(expected: Sequence[str]) -> list[set[str]]:
    """Each expected kind as its alternatives: "a|b" is either."""
    return [set(kind.split("|")) for kind in expected]
