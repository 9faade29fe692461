"""The path that training takes on a GPU, on a CPU: what is recorded there is taped here."""

import pytest

from kernels.chunked_steps import chunk_for
from support.tape import taped


def take_gpu_path(patch: pytest.MonkeyPatch) -> None:
    """From here on every module takes it; recordings that are there already are not used."""
    for module in ("model", "losses.mmi", "training.train_step", "kernels.inference", "kernels.decoder_steps"):
        patch.setattr(f"{module}.is_gpu", lambda device: True)
    for module in ("kernels.chunked_steps", "kernels.inference"):
        patch.setattr(f"{module}.record_graph", taped)
    patch.setattr("kernels.matmul.prefers_packed_fp32", lambda: False)
    chunk_for.cache_clear()
