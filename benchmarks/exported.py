"""Size and speed of an exported voice at full size: `python benchmarks/exported.py`.

Random weights in NVIDIA's sizes say 50 symbols in 300 frames, without a vocoder: by torch, and by the player from a
.zip in fp32 and in int8. One thread, processor time, the median of five. The distance of int8 is the root mean square
over all log-mels, with the same dropout.
"""

import dataclasses
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch

from exporting.card import Card
from exporting.files import export_onnx
from hparams import create_hparams
from model import Tacotron2
from player.voice import OnnxVoice
from speech.voice import Voice

N_SYMBOLS, N_FRAMES, ROUNDS = 50, 300, 5
IDS = [11 + i % 100 for i in range(N_SYMBOLS)]
ENDLESS: dict[str, Any] = {  # but for N_FRAMES
    "gate_threshold": 1.0, "max_frames": N_FRAMES, "budget_offset": N_FRAMES, "dwell_frames": N_FRAMES + 1
}  # fmt: skip


def ms_a_frame(speak: Callable[[], object]) -> float:
    speak()  # warms up
    seconds = []
    for _ in range(ROUNDS):
        began = time.process_time()
        speak()
        seconds.append(time.process_time() - began)
    return 1000 * statistics.median(seconds) / N_FRAMES


def random_voice(folder: Path) -> Voice:
    torch.manual_seed(0)
    path = folder / "random.pt"
    torch.save({"state_dict": Tacotron2(create_hparams("")).state_dict()}, path)
    return Voice.load(path)


def by_torch(voice: Voice) -> float:
    text, lengths = torch.tensor([IDS]), torch.tensor([N_SYMBOLS])
    limits = dataclasses.replace(voice.limits, **ENDLESS)
    return ms_a_frame(lambda: voice.model.infer(text, lengths, limits, generator=torch.Generator().manual_seed(1)))


def by_player(path: Path) -> tuple[float, np.ndarray]:
    """-> ms a frame, log-mel [n_mels, T]"""
    loaded = OnnxVoice.load(path, n_threads=1)
    player = dataclasses.replace(loaded, description=dataclasses.replace(loaded.description, **ENDLESS))
    mel = player.say(IDS, row=0, masks=player.masks(1)).mel
    assert mel.shape[1] == N_FRAMES
    return ms_a_frame(lambda: player.say(IDS, row=0, masks=player.masks(1))), mel


def main() -> None:
    torch.set_num_threads(1)
    print("| file | MB | ms a frame | log-mel beside fp32 |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name, torch.inference_mode():
        folder = Path(name)
        voice = random_voice(folder)
        print(f"| torch, fp32 | | {by_torch(voice):.2f} | |", flush=True)
        of_fp32: np.ndarray | None = None
        for is_int8 in (False, True):
            path = folder / f"voice_{is_int8}.zip"
            size = export_onnx(voice, path, Card("random"), is_int8=is_int8).n_bytes / 1e6
            ms, mel = by_player(path)
            distance = "" if of_fp32 is None else f"{np.sqrt(np.mean((mel - of_fp32) ** 2)):.3f}"
            print(f"| .zip, {'int8' if is_int8 else 'fp32'} | {size:.1f} | {ms:.2f} | {distance} |", flush=True)
            of_fp32 = mel if of_fp32 is None else of_fp32


if __name__ == "__main__":
    main()
