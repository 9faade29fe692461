"""A vocoder makes sound of a log-mel: `load_vocoder("universal", fingerprint)(mel)`."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor

from audio.griffin_lim import griffin_lim
from audio.mel import MelFingerprint
from common.errors import UserError
from hparams import AudioParams
from speech.vocoders.generator import Generator, Reach
from speech.vocoders.generator_config import CONFIG_NAME, read_generator_config
from speech.vocoders.generator_file import build_generator, read_generator_tensors
from speech.vocoders.mel_format import MelFormat
from speech.vocoders.packaged_weights import PACKAGED, packaged_generator

GRIFFIN_LIM = "griffin-lim"
# Chunks begin small, so that the first sound comes early, and double: small ones look at much context twice
FIRST_CHUNK, CHUNK_FRAMES = 32, 256  # 0.4 and 3 s of sound at 22050 Hz

VocoderPrecision = Literal["fp32", "bf16"]
VocoderPrecisionChoice = Literal["fp32", "bf16", "auto"]  # auto: bf16 where it is faster and was found as good


class Vocoder(Protocol):
    """Frame t of a mel is centred on sample t * hop_length of its sound, and L = (T - 1) * hop_length.

    A single frame gives hop_length samples. NaN in the mel comes out as NaN, which `audio.write_wav` refuses.
    """

    @property
    def name(self) -> str: ...

    @property
    def sampling_rate(self) -> int: ...

    @property
    def hop_length(self) -> int: ...

    def __call__(self, mel: Tensor) -> Tensor:
        """[n_mels, T] -> float32 [L], or [B, n_mels, T] -> [B, L], |x| <= 1, on the mel's device."""
        ...

    def stream(self, pieces: Iterable[Tensor]) -> Iterator[Tensor]:
        """The sound of the mel [n_mels, T] that the pieces make up, in pieces, as soon as it can be told."""
        ...


@dataclass(frozen=True)
class GriffinLim:
    """`audio.griffin_lim` as a vocoder. It looks at the whole mel at once, so its stream is one piece at the end."""

    audio: AudioParams
    n_iter: int = 60
    seed: int = 0
    name: str = GRIFFIN_LIM

    @property
    def sampling_rate(self) -> int:
        return self.audio.sampling_rate

    @property
    def hop_length(self) -> int:
        return self.audio.hop_length

    def __call__(self, mel: Tensor) -> Tensor:
        """As `Vocoder`: [..., n_mels, T] -> [..., L]."""
        if mel.dim() == 3:
            return torch.stack([self(one) for one in mel])
        return griffin_lim(mel, self.audio, n_iter=self.n_iter, seed=self.seed)

    def stream(self, pieces: Iterable[Tensor]) -> Iterator[Tensor]:
        """[n_mels, T] in pieces -> [L] in one."""
        yield self(torch.cat(list(pieces), dim=-1))


@dataclass(frozen=True)
class NeuralVocoder:
    """A HiFi-GAN or BigVGAN in chunks: memory does not grow with the mel, and no sample depends on where chunks end."""

    name: str
    generator: Generator
    device: torch.device
    precision: VocoderPrecision = "fp32"
    chunk_frames: int = CHUNK_FRAMES

    @property
    def sampling_rate(self) -> int:
        return self.generator.config.sampling_rate

    @property
    def hop_length(self) -> int:
        return self.generator.config.hop_size

    def __call__(self, mel: Tensor) -> Tensor:
        """As `Vocoder`: [..., n_mels, T] -> [..., L]."""
        return torch.cat(list(self.stream([mel])), dim=-1)

    def stream(self, pieces: Iterable[Tensor]) -> Iterator[Tensor]:
        """Like `Vocoder.stream`, also of [B, n_mels, T]. The first sound needs FIRST_CHUNK frames and their reach."""
        mel = self.generator.config.mel
        n_ahead, n_beyond = mel.first_centre, mel.hop_length - mel.first_centre
        held: Tensor | None = None  # what is beyond the last frame's centre, should no more frames come
        for window, context in _windows(pieces, chunk_frames=self.chunk_frames, reach=self.generator.reach):
            sound = self._sound_of(window, context)
            sound = sound[..., n_ahead:] if held is None else torch.cat([held, sound], dim=-1)
            held = sound[..., -n_beyond:]
            yield sound[..., :-n_beyond]

    @torch.no_grad()
    def _sound_of(self, mel: Tensor, context: Reach) -> Tensor:
        """[..., n_mels, T] -> [..., L] of the frames that are not context."""
        batch = mel if mel.dim() == 3 else mel.unsqueeze(0)
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        sound = self.generator(batch.to(self.device, dtype), context).to(mel.device, torch.float32)
        return sound if mel.dim() == 3 else sound[0]


def _windows(pieces: Iterable[Tensor], *, chunk_frames: int, reach: Reach) -> Iterator[tuple[Tensor, Reach]]:
    """The mel [..., T] that the pieces make up in stretches of up to chunk_frames, with the context each depends on."""
    mel: Tensor | None = None
    n_before = 0  # frames of context that mel begins with
    n_frames = min(FIRST_CHUNK, chunk_frames)
    for piece in pieces:
        mel = piece if mel is None else torch.cat([mel, piece], dim=-1)
        while mel.shape[-1] >= n_before + n_frames + reach.after:
            end = n_before + n_frames
            yield mel[..., : end + reach.after], Reach(n_before, reach.after)
            n_before = min(end, reach.before)
            mel = mel[..., end - n_before :]
            n_frames = min(2 * n_frames, chunk_frames)
    if mel is None:
        return
    if mel.shape[-1] == 1 and not n_before:
        mel = mel.repeat_interleave(2, dim=-1)  # two centres are a hop apart
    if mel.shape[-1] > n_before:
        yield mel, Reach(n_before, 0)


def load_vocoder(
    name_or_path: str | Path,
    mel: MelFingerprint,
    *,
    device: torch.device | str = "cpu",
    precision: VocoderPrecisionChoice = "auto",
) -> Vocoder:
    """A vocoder for the mels of a voice: "griffin-lim", "universal", "lj", or the path of a generator's file.

    UserError, before any sound is made, says what to do if the file is missing, holds code, is of a format or a shape
    that is not supported, if it knows other mels than these (every difference is named), or bf16 is not to be had.
    """
    name = str(name_or_path)
    if name == GRIFFIN_LIM:
        if precision == "bf16":
            raise UserError(f"vocoder precision bf16: {GRIFFIN_LIM} computes in fp32 only; take fp32 or auto")
        settings = {f.name: getattr(mel, f.name) for f in fields(MelFingerprint) if f.name != "format_version"}
        return GriffinLim(AudioParams(**settings))
    path = packaged_generator(name) if name in PACKAGED else Path(name_or_path)
    tensors = read_generator_tensors(path)
    config = read_generator_config(path.with_name(CONFIG_NAME))
    check_mel(config.mel, MelFormat.of_voice(mel), path=path)
    device = torch.device(device)
    usable = usable_precision(precision, device=device, is_bigvgan=config.is_bigvgan)
    generator = build_generator(config, tensors, path=path)
    dtype = torch.bfloat16 if usable == "bf16" else torch.float32
    return NeuralVocoder(name, generator.to(device, dtype), device=device, precision=usable)


@lru_cache(maxsize=2)
def sample_vocoder(name: str, mel: MelFingerprint, device: torch.device) -> Vocoder | None:
    """Of samples in training, loaded once; None for Griffin-Lim. UserError as `load_vocoder`."""
    if name == GRIFFIN_LIM:
        return None
    try:
        return load_vocoder(name, mel, device=device)
    except UserError as error:
        raise UserError(f"sample_vocoder={name} (as --vocoder of synthesize.py): {error}") from error


def check_mel(vocoder: MelFormat, voice: MelFormat, *, path: Path) -> None:
    """UserError with every difference at once, if the vocoder knows other mels than the voice makes."""
    differences = voice.differences_from(vocoder)
    if not differences:
        return
    advice = f"take a vocoder of the voice's own mel, or --vocoder {GRIFFIN_LIM}, which takes any"
    if vocoder.mel_fmax > voice.mel_fmax and len(differences) == 1:
        advice = (
            f"take one made for {voice.mel_fmax:g} Hz (of BigVGAN at 22050 Hz: bigvgan_v2_22khz_80band_fmax8k_256x), "
            f"or --vocoder {GRIFFIN_LIM}, which takes any"
        )
    headline = f"{path} knows other mels than the voice makes; {advice}:"
    raise UserError("\n  ".join([headline, *differences]))


def usable_precision(wanted: VocoderPrecisionChoice, *, device: torch.device, is_bigvgan: bool) -> VocoderPrecision:
    """What `wanted` comes to there; UserError if bf16 is wanted where it can't be had or was never measured."""
    lack = _lacks_for_bf16(device, is_bigvgan=is_bigvgan)
    if wanted == "auto":
        # on a GPU float32 is fast enough, and bf16 was not measured there
        return "bf16" if lack is None and device.type == "cpu" else "fp32"
    if wanted == "bf16" and lack:
        raise UserError(f"vocoder precision bf16: {lack}; take fp32 or auto")
    return wanted


def _lacks_for_bf16(device: torch.device, *, is_bigvgan: bool) -> str | None:
    if is_bigvgan:
        return "what bf16 does to the sound of a BigVGAN was never measured"
    if device.type == "cpu" and not _processor_has_bf16():
        return "this processor has no bf16 instructions, without which bf16 is some 20 times slower than fp32"
    return None


def _processor_has_bf16() -> bool:
    ask = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # private, so it may be gone one day
    return ask is not None and bool(ask())
