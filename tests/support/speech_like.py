"""Sound that all checks of recordings take for speech, and sentences to go with it."""

from io import BytesIO

import numpy as np
import soundfile

RATE = 22050
SENTENCES = (
    "The old river sings near the house.", "Seven green trees walk to the town.", "A small dog sees the big cat.",
    "Nobody knows where the blue apple fell.", "Winter came early that year.", "She closed the door and laughed.",
    "There were no letters in the morning.", "He counted the windows twice.",
)  # fmt: skip


def voice_like(seconds: float = 1.2, *, rate: int = RATE, seed: int = 0, pitch: float = 140.0) -> np.ndarray:
    """[L]: harmonics in syllables with pauses, over a little noise: all that the checks ask of speech."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * rate)) / rate
    tone = sum(np.sin(2 * np.pi * pitch * k * t + k) / k for k in range(1, int(min(rate / 2, 8000) / pitch)))
    syllables = np.clip(np.sin(2 * np.pi * 3.5 * t) * 2, 0, 1) + 0.002
    return 0.12 * tone * syllables + 2e-4 * rng.standard_normal(len(t))


def encoded(samples: np.ndarray, rate: int = RATE, *, format: str = "WAV", subtype: str | None = None) -> bytes:
    """[L] or [L, channels] as the bytes of a file."""
    file = BytesIO()
    soundfile.write(file, samples, rate, format=format, subtype=subtype)
    return file.getvalue()
