"""Free-running decoding of fixed texts, compared with their recordings."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from audio.enhancement import enhance
from audio.mel_sharpening import sharpened
from corpus.mel_statistics import MelStats
from corpus.speakers import row_tensor
from hparams import HParams
from model import Decoded, DecodeLimits, Tacotron2, pad_texts
from run_directory.records import Sample
from speech import metrics
from speech.vocoders.vocoder import GriffinLim, Vocoder
from text.symbols import needs_sound


@dataclass(frozen=True)
class Reference:
    """A text to speak and the recording to compare with."""

    text: str
    ids: Sequence[int]
    symbols: Sequence[str]  # of these ids, as a person reads them
    mel: np.ndarray | None  # [n_mels, T_mel] log-mel of the recording, where there is one
    speaker: int | None = None  # row of the speaker table


def speak(
    model: Tacotron2,
    references: Sequence[Reference],
    limits: DecodeLimits,
    *,
    seed: int,
    device: torch.device,
    style: Tensor | None = None,
) -> list[Decoded]:
    """Free-running decoding in one batch, reproducible by `seed`; training's random state is left alone.

    style [B, heads, tokens]: without it each text decides its own, whatever its recording was like.
    """
    generator = torch.Generator(device=device).manual_seed(seed)
    text, lengths = pad_texts([reference.ids for reference in references])
    rows = row_tensor([reference.speaker for reference in references])
    speakers = None if rows is None else rows.to(device)
    return model.infer(text.to(device), lengths.to(device), limits, generator=generator, speakers=speakers, style=style)


def ignored_symbols(symbols: Sequence[str]) -> np.ndarray:
    """True where attention may pass over a symbol without harm: spaces, punctuation, marks. [T_text]"""
    return np.array([not needs_sound(symbol) for symbol in symbols])


def log_mel(standardised: Tensor, stats: MelStats) -> np.ndarray:
    """standardised [n_mels, T_mel] -> float32 log-mel [n_mels, T_mel]"""
    return (standardised.float().cpu().numpy() * stats.std + stats.mean).astype(np.float32)


def assess(sample: Sample, std: float) -> metrics.FreeRunning:
    """The free-running metrics of one sample that has a recording; `std` is the corpus deviation."""
    assert sample.target_mel is not None, sample.text
    return metrics.assess(
        sample.alignment,
        predicted_mel=sample.mel,
        reference_mel=sample.target_mel,
        std=std,
        stop_reason=sample.stop_reason,
        ignore=ignored_symbols(sample.symbols),
    )


def sample_of(
    decoded: Decoded,
    reference: Reference,
    hp: HParams,
    stats: MelStats,
    *,
    n_iter: int,
    seed: int = 0,
    enhanced: bool = False,
    vocoder: Vocoder | None = None,
) -> Sample:
    """What there is to see and hear of one text; no sound with n_iter=0. Enhancement touches the sound only, not `mel`.

    n_iter and seed are Griffin-Lim's, which speaks where no other vocoder is given.
    """
    mel = log_mel(decoded.mel, stats)
    heard = sharpened(mel) if enhanced else mel
    wav = sound_of(heard, vocoder or GriffinLim(hp), n_iter=n_iter, seed=seed) if n_iter else None
    return Sample(
        text=reference.text,
        symbols=list(reference.symbols),
        alignment=decoded.alignment.float().cpu().numpy(),
        gate=decoded.gate.float().cpu().numpy(),
        mel=mel,
        target_mel=reference.mel,
        stop_reason=decoded.stop_reason,
        wav=enhance(wav, hp.sampling_rate) if enhanced and wav is not None else wav,
        sampling_rate=hp.sampling_rate,
        frame_s=hp.hop_length / hp.sampling_rate,
    )


def sound_of(mel: np.ndarray, vocoder: Vocoder, *, n_iter: int, seed: int) -> np.ndarray:
    """[n_mels, T] -> float32 [L]. n_iter and seed are Griffin-Lim's; other vocoders draw nothing."""
    if isinstance(vocoder, GriffinLim):
        vocoder = replace(vocoder, n_iter=n_iter, seed=seed)
    return vocoder(torch.from_numpy(mel)).numpy()
