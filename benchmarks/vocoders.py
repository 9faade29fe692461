"""Vocoders on recordings turned into mels and back, and their speed: `python benchmarks/vocoders.py LIST:12 LIST:6`.

LIST:N are the first N recordings of a filelist. Each is marked by DNSMOS (P.808, SIG, OVRL) and DistillMOS as it is and
after each vocoder. One thread. Where the processor lacks bf16, every result is rounded to it: the same sound, no speed.
`--speed` times every published shape of generator instead, with random weights, which cost as much as trained ones.

    pip install -r requirements-eval.txt -r requirements-vocoder.txt
    pip install --no-deps -r requirements-listen.txt
"""

import argparse
import math
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from audio.mel import MelFingerprint, mel_spectrogram
from audio.recordings import read_audio
from hparams import AudioParams
from listeners.quality import SoundQuality
from speech.vocoders.generator import Generator
from speech.vocoders.generator_config import GeneratorConfig
from speech.vocoders.vocoder import NeuralVocoder, Vocoder, load_vocoder

AUDIO = AudioParams()
MEL = MelFingerprint.of(AUDIO)
MEASURES = {"P.808": "dnsmos_p808", "SIG": "dnsmos_signal", "OVRL": "dnsmos_overall", "DistillMOS": "distillmos"}
SHAPES: dict[str, dict[str, Any]] = {
    "HiFi-GAN V1": {"upsample_initial_channel": 512},
    "HiFi-GAN V2": {"upsample_initial_channel": 128},
    "HiFi-GAN V3": {
        "resblock": "2", "upsample_initial_channel": 256, "upsample_rates": (8, 8, 4),
        "upsample_kernel_sizes": (16, 16, 8), "resblock_kernel_sizes": (3, 5, 7),
        "resblock_dilation_sizes": ((1, 2), (2, 6), (3, 12)),
    },
    "BigVGAN base": {"upsample_initial_channel": 512, "activation": "snakebeta", "snake_logscale": True},
    "BigVGAN v2 (fmax8k_256x)": {
        "upsample_initial_channel": 1536, "upsample_rates": (4, 4, 2, 2, 2, 2),
        "upsample_kernel_sizes": (8, 8, 4, 4, 4, 4), "activation": "snakebeta", "snake_logscale": True,
    },
}  # fmt: skip
COMMON = {
    "resblock": "1", "upsample_rates": (8, 8, 2, 2), "upsample_kernel_sizes": (16, 16, 4, 4),
    "resblock_kernel_sizes": (3, 7, 11), "resblock_dilation_sizes": ((1, 3, 5),) * 3, "num_mels": 80, "n_fft": 1024,
    "hop_size": 256, "win_size": 1024, "sampling_rate": 22050, "fmin": 0, "fmax": 8000,
}  # fmt: skip


class RoundedToBfloat16(TorchDispatchMode):
    """Every operation computes in float32 and its result is rounded: what oneDNN does where the processor has bf16."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.dtype == torch.float32:
            return result.to(torch.bfloat16).to(torch.float32)
        return result


@dataclass(frozen=True)
class Row:
    name: str
    marks: list[list[float]]  # one list a clip
    cpu_s: float
    sound_s: float

    def line(self) -> str:
        means = [f"{statistics.fmean(values):.2f}" for values in zip(*self.marks, strict=True)]
        speed = f"{self.cpu_s / self.sound_s:.2f}" if self.cpu_s else ""
        return f"| {self.name} | {' | '.join(means)} | {speed} |"


def vocoders() -> dict[str, Callable[[Tensor], Tensor]]:
    """By name; each makes [L] of a mel [n_mels, T_mel]."""
    universal = load_vocoder("universal", MEL, precision="fp32")
    return {
        "Griffin-Lim": load_vocoder("griffin-lim", MEL),
        "universal, fp32": universal,
        bf16_name(): bf16_of(universal),
        "lj, fp32": load_vocoder("lj", MEL, precision="fp32"),
    }


def has_bf16() -> bool:
    return torch.cpu._is_avx512_bf16_supported()


def bf16_name() -> str:
    return "universal, bf16" if has_bf16() else "universal, bf16 (every result rounded)"


def bf16_of(vocoder: Vocoder) -> Callable[[Tensor], Tensor]:
    """[n_mels, T_mel] -> [L] in bf16; where this processor lacks it, with its rounding."""
    if has_bf16():
        return load_vocoder("universal", MEL, precision="bf16")
    assert isinstance(vocoder, NeuralVocoder)
    rounded = load_vocoder("universal", MEL, precision="fp32")
    assert isinstance(rounded, NeuralVocoder)
    rounded.generator.to(torch.bfloat16).to(torch.float32)

    def synthesize(mel: Tensor) -> Tensor:
        with RoundedToBfloat16():
            return rounded(mel)

    return synthesize


def marks_of(sound: np.ndarray, quality: SoundQuality) -> list[float]:
    """[L] -> in the order of MEASURES."""
    marks = quality.marks(sound, sampling_rate=AUDIO.sampling_rate)
    return [marks[name] for name in MEASURES.values()]


def judged(name: str, sounds: Sequence[np.ndarray], quality: SoundQuality, *, cpu_s: float = 0.0) -> Row:
    """sounds [L] each. cpu_s: of processor time for all."""
    sound_s = sum(map(len, sounds)) / AUDIO.sampling_rate
    return Row(name, [marks_of(sound, quality) for sound in sounds], cpu_s, sound_s)


def quality_table(filelist: Path, n_clips: int, quality: SoundQuality) -> str:
    lines = filelist.read_text(encoding="utf-8").splitlines()[:n_clips]
    folder = filelist.parent.parent
    recordings = [read_audio(folder / line.split("|")[0], AUDIO) for line in lines]
    mels = [mel_spectrogram(torch.from_numpy(recording), AUDIO) for recording in recordings]
    rows = [judged("recording", recordings, quality)]
    for name, vocoder in vocoders().items():
        began = time.process_time()
        sounds = [vocoder(mel).numpy() for mel in mels]
        took = time.process_time() - began
        rows.append(judged(name, sounds, quality, cpu_s=0.0 if "rounded" in name else took))
    seconds = sum(map(len, recordings)) / AUDIO.sampling_rate
    header = f"{folder.name}, {len(recordings)} clips, {seconds:.0f} s"
    titles = f"| {header} | {' | '.join(MEASURES)} | CPU s per s |\n{'|---' * (len(MEASURES) + 2)}|"
    return "\n".join([titles, *(row.line() for row in rows)])


def random_vocoder(name: str, shape: Mapping[str, Any]) -> NeuralVocoder:
    config = GeneratorConfig.model_validate({**COMMON, **shape})
    generator = Generator(config).eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return NeuralVocoder(name, generator, device=torch.device("cpu"))


def speed_table(*, n_frames: int, repeats: int) -> str:
    """Median of the repeats, which go round the shapes in turn, so that a busy minute spares none."""
    mel = torch.randn(80, n_frames, generator=torch.Generator().manual_seed(0)) * 2 - 4
    made = {name: random_vocoder(name, shape) for name, shape in SHAPES.items()}
    times: dict[str, list[float]] = {name: [] for name in made}
    seconds = (n_frames - 1) * AUDIO.hop_length / AUDIO.sampling_rate
    for _ in range(repeats):
        for name, vocoder in made.items():
            began = time.process_time()
            vocoder(mel)
            times[name].append((time.process_time() - began) / seconds)
    lines = ["| generator | million weights | CPU s per s of sound |", "|---|---|---|"]
    for name, vocoder in made.items():
        millions = sum(p.numel() for p in vocoder.generator.parameters()) / 1e6
        lines.append(f"| {name} | {millions:.1f} | {statistics.median(times[name]):.2f} |")
    return "\n".join(lines)


def memory_table(minutes: Sequence[int]) -> str:
    """Resident memory while one stream runs whose sound is thrown away; the generator is narrow, to be quick."""
    vocoder = random_vocoder("narrow", {"upsample_initial_channel": 16})
    pieces = (torch.zeros(80, 100) - 4 for _ in range(minutes[-1] * 52))  # 52 are just over a minute
    lines = ["| minutes into one stream | resident memory, MB |", "|---|---|"]
    n_samples, waited_for = 0, iter(minutes)
    next_one: float = next(waited_for)
    for sound in vocoder.stream(pieces):
        n_samples += len(sound)
        if n_samples >= next_one * 60 * AUDIO.sampling_rate:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            lines.append(f"| {next_one} | {pages * resource.getpagesize() / 2**20:.0f} |")
            next_one = next(waited_for, math.inf)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lists", nargs="*", metavar="LIST:N", help="a filelist, and how many of its recordings")
    parser.add_argument("--speed", action="store_true", help="time the published shapes, and their memory")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.speed:
        print(speed_table(n_frames=500, repeats=5), memory_table((1, 10, 30, 60)), sep="\n\n")
    quality = SoundQuality()
    if args.lists and quality.missing:
        parser.error(f"judges are missing - {'; '.join(quality.missing)}")
    for each in args.lists:
        filelist, _, count = each.rpartition(":")
        print(quality_table(Path(filelist), int(count), quality), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
