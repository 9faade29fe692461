"""How good a sound is by models that were trained on people's marks of 1 to 5: DNSMOS and DistillMOS.

DNSMOS (Reddy et al. 2021, 2022) knows noise and distortion best and likes clean artificial voices; DistillMOS (Stahl
and Gamper 2025) was trained on synthetic speech too. Compare with the mark of the recordings.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from functools import cached_property
from io import StringIO
from types import ModuleType
from typing import Any

import numpy as np

from listeners.packages import INSTALL, INSTALL_WITHOUT_DEPENDENCIES, missing

RATE = 16000  # Hz, of both
DNSMOS = {"speechmos": "speechmos"}
DISTILLMOS = {"distillmos": "distillmos", "xls-r-sqa": "xls_r_sqa"}
# name of a mark -> as DNSMOS names it
DNSMOS_MARKS = {"dnsmos_p808": "p808_mos", "dnsmos_signal": "sig_mos", "dnsmos_overall": "ovrl_mos"}


class SoundQuality:
    """The judges that are installed; `missing` says how to install the others."""

    def __init__(self) -> None:
        self.has_dnsmos, self.has_distillmos = not missing(DNSMOS), not missing(DISTILLMOS)

    @property
    def missing(self) -> list[str]:
        lacking = {
            f"DNSMOS: {INSTALL}": not self.has_dnsmos,
            f"DistillMOS: {INSTALL_WITHOUT_DEPENDENCIES}": not self.has_distillmos,
        }
        return [words for words, is_missing in lacking.items() if is_missing]

    def marks(self, wav: np.ndarray, *, sampling_rate: int) -> dict[str, float]:
        """Marks of 1 to 5 of wav, float32 [L] in [-1, 1], by name; only those of the installed judges."""
        heard = _heard(wav, sampling_rate)
        marks: dict[str, float] = {}
        if self.has_dnsmos:
            found = self._dnsmos.run(heard, sr=RATE)
            marks |= {name: float(found[theirs]) for name, theirs in DNSMOS_MARKS.items()}
        if self.has_distillmos:
            marks["distillmos"] = self._distilled(heard)
        return marks

    def distillmos(self, wav: np.ndarray, *, sampling_rate: int) -> float:
        """The mark of DistillMOS alone for wav [L], 1 to 5, where it is installed."""
        return self._distilled(_heard(wav, sampling_rate))

    @cached_property
    def _dnsmos(self) -> ModuleType:
        from speechmos import dnsmos

        return dnsmos

    @cached_property
    def _distillmos(self) -> Any:
        with _stand_in_for_torchaudio(), redirect_stdout(StringIO()):  # it prints where its weights lie
            from distillmos import ConvTransformerSQAModel

            return ConvTransformerSQAModel().eval()

    def _distilled(self, heard: np.ndarray) -> float:
        import torch

        with torch.inference_mode():
            return float(self._distillmos(torch.from_numpy(heard)[None]))


def _heard(wav: np.ndarray, sampling_rate: int) -> np.ndarray:
    """[L] at sampling_rate -> [L'] as both judges hear it."""
    import soxr

    return np.clip(soxr.resample(np.asarray(wav, np.float32), sampling_rate, RATE, quality="VHQ"), -1, 1)


@contextmanager
def _stand_in_for_torchaudio() -> Iterator[None]:
    """DistillMOS imports torchaudio for its command line alone, and PyPI has none for a CPU build of torch."""
    names = ("torchaudio", "torchaudio.transforms")
    if "torchaudio" in sys.modules:
        yield
        return
    stand_in, transforms = (ModuleType(name) for name in names)
    transforms.MFCC = transforms.Resample = object  # type: ignore[attr-defined]
    stand_in.transforms = transforms  # type: ignore[attr-defined]
    sys.modules.update(zip(names, (stand_in, transforms), strict=True))
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]
