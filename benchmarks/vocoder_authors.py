"""Our generators beside the authors' code, from a clone of it.

    git clone https://github.com/jik876/hifi-gan       (needs librosa, scipy, matplotlib)
    git clone https://github.com/NVIDIA/BigVGAN        (the same, and huggingface_hub)
    python benchmarks/vocoder_authors.py hifi-gan --recordings CLIP.wav
    python benchmarks/vocoder_authors.py BigVGAN
    python benchmarks/vocoder_authors.py hifi-gan --data hifigan_data

Shown are the largest differences of the sound in float32, with weight norm kept and removed by the authors, and in
float64. Weights are random, layers near unit gain. `--recordings` adds real weights on mels of recordings, and on the
first of them the time of each way of computing. `--data` compares the mels that `python -m exporting --recorded` wrote
with those that HiFi-GAN computes of the recordings beside them, moved by so many samples. One thread.
"""

import argparse
import contextlib
import importlib
import io
import json
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import soundfile
import torch
from torch import Tensor, nn

from audio.mel import mel_spectrogram
from audio.recordings import read_audio
from hparams import AudioParams
from speech.vocoders.generator import Generator
from speech.vocoders.generator_config import read_generator_config
from speech.vocoders.generator_file import build_generator, read_generator_tensors
from speech.vocoders.onnx_export import export_graph
from speech.vocoders.packaged_weights import packaged_generator
from speech.vocoders.vocoder import NeuralVocoder

AUDIO = AudioParams()
CONFIGURATIONS = (
    *("config_v1.json", "config_v2.json", "config_v3.json"),
    *("configs/bigvgan_base_22khz_80band.json", "configs/bigvgan_22khz_80band.json"),
    "configs/bigvgan_v2_22khz_80band_fmax8k_256x.json",
)
FRAMES, LOUDNESS = 40, 0.6
STEP, FARTHEST = 16, 128  # samples that a recording is moved by


# ---- the same weights in both


def theirs(config: Path) -> nn.Module:
    """The generator of the clone, with weight norm."""
    module, name = ("models", "Generator") if config.name.startswith("config_") else ("bigvgan", "BigVGAN")
    settings = importlib.import_module("env").AttrDict(json.loads(config.read_text(encoding="utf-8")))
    made: nn.Module = getattr(importlib.import_module(module), name)(settings)
    return made.eval().requires_grad_(False)


def ours(their: nn.Module, config: Path) -> Generator:
    generator = build_generator(read_generator_config(config), their.state_dict(), path=config)
    return generator.eval().requires_grad_(False)


def draw_weights(their: nn.Module, mel: Tensor) -> None:
    """Layers near unit gain, and a sound that seldom reaches the limit. mel [1, n_mels, T]."""
    torch.manual_seed(0)
    convolutions = [one for one in their.modules() if isinstance(one, nn.Conv1d | nn.ConvTranspose1d)]
    for one in convolutions:
        stride = one.stride[0] if isinstance(one, nn.ConvTranspose1d) else 1
        n_in = one.in_channels * one.kernel_size[0] // stride
        lengths = [value for name, value in one.named_parameters() if name.endswith(("weight_g", "original0"))][0]
        directions = [value for name, value in one.named_parameters() if name.endswith(("weight_v", "original1"))][0]
        directions.normal_(std=n_in**-0.5)
        lengths.copy_(directions.norm(dim=(1, 2), keepdim=True))
        if one.bias is not None:
            one.bias.normal_(std=0.01)
    last = convolutions[-1] if convolutions[-1].out_channels == 1 else their.conv_post
    assert isinstance(last, nn.Conv1d)
    for name, value in last.named_parameters():
        if name.endswith(("weight_g", "original0")):
            value.mul_(LOUDNESS / before_the_limit(their, last, mel).std())


def before_the_limit(their: nn.Module, last: nn.Module, mel: Tensor) -> Tensor:
    """[1, n_mels, T] -> what the last convolution gives, [1, 1, L]"""
    heard: list[Tensor] = []
    hook = last.register_forward_hook(lambda module, given, made: heard.append(made))
    their(mel)
    hook.remove()
    return heard[0]


def without_norm(their: nn.Module) -> nn.Module:
    with contextlib.redirect_stdout(io.StringIO()):  # it says so
        their.remove_weight_norm()  # type: ignore[operator]
    return their


def differences(their: nn.Module, generator: Generator, mel: Tensor) -> str:
    """The sound's root mean square; the largest difference, with weight norm and without, and without in float64.

    The last tells rounding from another formula. mel [1, n_mels, T].
    """
    sound = generator(mel)
    kept = their(mel)[:, 0]
    removed = without_norm(their)(mel)[:, 0]
    largest = float(max((sound - kept).abs().max(), (sound - removed).abs().max()))
    exact = float((generator.double()(mel.double()) - their.double()(mel.double())[:, 0]).abs().max())
    return f"{float(kept.square().mean().sqrt()):.2f} | {largest:.1e} | {exact:.1e}"


def random_rows(clone: Path) -> Iterator[str]:
    for config in (clone / name for name in CONFIGURATIONS):
        if config.exists():
            n_mels = json.loads(config.read_text(encoding="utf-8"))["num_mels"]
            mel = torch.randn(1, n_mels, FRAMES, generator=torch.Generator().manual_seed(0)) * 2 - 4
            their = theirs(config)
            draw_weights(their, mel)
            yield f"| {config.stem}, random | {FRAMES} | {differences(their, ours(their, config), mel)} |"


# ---- real weights


def packaged(name: str) -> tuple[nn.Module, Generator]:
    """universal or lj in both."""
    path = packaged_generator(name)
    settings = json.loads(path.with_name("config.json").read_text(encoding="utf-8"))
    their: nn.Module = importlib.import_module("models").Generator(importlib.import_module("env").AttrDict(settings))
    their.load_state_dict(read_generator_tensors(path))
    their.eval().requires_grad_(False)
    return their, ours(their, path.with_name("config.json"))


def mel_of(path: Path) -> Tensor:
    """[1, n_mels, T]"""
    return mel_spectrogram(torch.from_numpy(read_audio(path, AUDIO)), AUDIO).unsqueeze(0)


def real_rows(recordings: Sequence[Path]) -> Iterator[str]:
    for path in recordings:
        mel = mel_of(path)
        for name in ("universal", "lj"):
            yield f"| {name}, {path.stem} | {mel.shape[2]} | {differences(*packaged(name), mel)} |"


def ways(mel: Tensor, *, rounds: int) -> str:
    """Processor seconds for a second of sound by universal, each in turn. mel [1, n_mels, T]."""
    import onnxruntime

    their, generator = packaged("universal")
    generator = generator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    vocoder = NeuralVocoder("universal", generator, torch.device("cpu"))
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        content, _ = export_graph(vocoder, Path(folder) / "universal.onnx")
    written_s = time.process_time() - began
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    of_onnx = torch.from_numpy(session.run(["sound"], {"mel": mel.numpy()})[0])
    whole, chunks = generator(mel), vocoder(mel)
    first = generator.config.mel.first_centre
    their = without_norm(their)
    made: dict[str, Callable[[], object]] = {
        "theirs, the whole mel at once": lambda: their(mel),
        "ours, whole": lambda: generator(mel),
        "ours, in chunks": lambda: vocoder(mel),
        "the ONNX file": lambda: session.run(["sound"], {"mel": mel.numpy()}),
    }
    times: dict[str, list[float]] = {name: [] for name in made}
    seconds = whole.shape[-1] / AUDIO.sampling_rate
    for _ in range(rounds):
        for name, way in made.items():
            began = time.process_time()
            way()
            times[name].append((time.process_time() - began) / seconds)
    lines = [f"| way, {seconds:.1f} s of sound | median (range), CPU s per s of sound |", "|---|---|"]
    lines += [f"| {name} | {statistics.median(t):.2f} ({min(t):.2f} to {max(t):.2f}) |" for name, t in times.items()]
    n = chunks.shape[-1]
    lines.append(
        f"\nchunks beside the whole: {float((chunks - whole[:, first : first + n]).abs().max()):.1e}; ONNX beside"
    )
    lines.append(
        f"torch: {float((of_onnx - whole).abs().max()):.1e}; {len(content) / 1e6:.1f} MB, made in {written_s:.0f} s"
    )
    return "\n".join(lines)


# ---- fine-tuning data


def mel_by_theirs(config: dict[str, Any]) -> Callable[[Tensor], Tensor]:
    """[L] -> [n_mels, T] by HiFi-GAN's meldataset.py, which was written for an older librosa and torch."""
    meldataset: Any = importlib.import_module("meldataset")
    filters = meldataset.librosa_mel_fn
    meldataset.librosa_mel_fn = lambda rate, n_fft, n, low, high: filters(
        sr=rate, n_fft=n_fft, n_mels=n, fmin=low, fmax=high
    )
    stft = torch.stft

    def old_stft(*given: Any, **named: Any) -> Tensor:
        return torch.view_as_real(stft(*given, **{**named, "return_complex": True}))

    names = ("n_fft", "num_mels", "sampling_rate", "hop_size", "win_size", "fmin", "fmax")

    def mel(sound: Tensor) -> Tensor:
        torch.stft = old_stft
        try:
            made: Tensor = meldataset.mel_spectrogram(sound.unsqueeze(0), *(config[name] for name in names))[0]
        finally:
            torch.stft = stft
        return made

    return mel


def moved(sound: Tensor, by: int) -> Tensor:
    """[L] -> [L], later by so many samples."""
    return torch.roll(sound, by)


def data_rows(clone: Path, folder: Path, n_clips: int) -> Iterator[str]:
    mel = mel_by_theirs(json.loads((clone / "config_v1.json").read_text(encoding="utf-8")))
    for path in sorted((folder / "wavs").glob("*.wav"))[:n_clips]:
        sound = torch.from_numpy(soundfile.read(path, dtype="float32")[0])
        written = torch.from_numpy(np.load(folder / "mels" / f"{path.stem}.npy"))
        n = written.shape[1]
        inner = slice(2, n - 2)  # the ends are reflected otherwise
        distances = {
            by: float((mel(moved(sound, by))[:, :n] - written)[:, inner].abs().mean())
            for by in range(-FARTHEST, FARTHEST + 1, STEP)
        }
        best = min(distances, key=lambda by: distances[by])
        near, far = (f"{min(distances[by], distances[-by]):.2g}" for by in (STEP, FARTHEST))
        yield f"| {path.stem} | {best} | {distances[best]:.1g} | {near} | {far} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clone", type=Path)
    parser.add_argument("--recordings", nargs="*", type=Path, default=[])
    parser.add_argument("--data", type=Path, help="a folder that `python -m exporting --recorded` wrote")
    parser.add_argument("--rounds", type=int, default=7, help="times of each way of computing (default 7)")
    parser.add_argument("-n", type=int, default=3, help="clips of --data (default 3)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    sys.path.insert(0, str(args.clone.resolve()))  # its env, utils, models; none of them is called as ours
    if args.data:
        print("| clip | best shift | distance there | at +-16 samples | at +-128, half a hop |\n|---|---|---|---|---|")
        print(*data_rows(args.clone, args.data, args.n), sep="\n")
        return
    with torch.no_grad():
        print("| generator | frames | root mean square | largest difference | in float64 |\n|---|---|---|---|---|")
        for rows in (random_rows(args.clone), real_rows(args.recordings)):
            for row in rows:
                print(row, flush=True)
        if args.recordings:
            print("\n" + ways(mel_of(args.recordings[0]), rounds=args.rounds))


if __name__ == "__main__":
    main()
