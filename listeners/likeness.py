"""How alike two voices are, by Resemblyzer's speaker encoder (GE2E, Wan et al. 2018)."""

import warnings
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from listeners.packages import INSTALL_WITHOUT_DEPENDENCIES, missing

RATE = 16000  # Hz, what it hears
LEVEL = 10 ** (-30 / 20)  # root mean square of full scale, as in its training
LEAST_S = 1.0  # of less it can't tell
PACKAGES = {"resemblyzer": "resemblyzer", "webrtcvad-wheels": "webrtcvad"}


class SpeakerLikeness:
    """Cosine of two voices: one person's clips 0.85 and more, two people 0.5 to 0.7."""

    @property
    def missing(self) -> list[str]:
        return [f"likeness of the voice: {INSTALL_WITHOUT_DEPENDENCIES}"] if missing(PACKAGES) else []

    def voice(self, wav: np.ndarray, *, sampling_rate: int) -> np.ndarray | None:
        """Unit vector [256] of wav, float32 [L]; None for less than a second."""
        import soxr

        if len(wav) < LEAST_S * sampling_rate:
            return None
        heard = soxr.resample(np.asarray(wav, np.float32), sampling_rate, RATE)
        power = float(np.square(heard).mean(dtype=np.float64))
        return unit(self._encoder.embed_utterance(heard * np.float32(LEVEL / max(1e-6, power**0.5))))

    @cached_property
    def _encoder(self) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # it imports from an old place of scipy
            from resemblyzer import VoiceEncoder

        return VoiceEncoder("cpu", verbose=False)


def unit(vector: np.ndarray) -> np.ndarray:
    """[n] -> [n] of length 1"""
    return vector / max(1e-9, float(np.linalg.norm(vector)))


def middle(voices: Sequence[np.ndarray | None]) -> np.ndarray | None:
    """The direction [n] between voices [n], by the median, which a few strangers don't move; None of none."""
    known = [voice for voice in voices if voice is not None]
    return unit(np.median(known, axis=0)) if known else None
