"""From a log-mel spectrogram to sound without trained weights."""

import math

import torch
from torch import Tensor

from audio.mel import _basis_for, _hann, silence_log_mel
from hparams import AudioParams

MEL_INVERSE_UPDATES = 60  # largest error of the inverse on voices: 0.3 after 30, 0.03 after 60 (log-mel)
TINY = 1e-12  # keeps quotients of magnitudes finite, far under MEL_FLOOR


@torch.no_grad()
def griffin_lim(
    log_mel: Tensor, audio: AudioParams, *, n_iter: int = 60, momentum: float = 0.99, seed: int = 0
) -> Tensor:
    """A signal whose mel is close to log_mel: [n_mels, T_mel] -> float32 [L], L = (T_mel - 1) * hop, |x| <= 1.

    Fast Griffin-Lim (Perraudin, Balazs, Sondergaard 2013) on the magnitude of mel_to_magnitude, from random phases:
    the same seed gives the same bits on CPU. One frame gives hop samples. The signal is scaled only if it would clip.
    NaN in log_mel comes out as NaN, which write_wav refuses.
    """
    n_mels, n_frames = log_mel.shape
    assert n_mels == audio.n_mel_channels, f"{n_mels} channels, but n_mel_channels={audio.n_mel_channels}"
    n_samples = max(n_frames - 1, 1) * audio.hop_length
    with torch.autocast(log_mel.device.type, enabled=False):
        magnitude = mel_to_magnitude(_lengthened(log_mel.float(), audio), audio)  # [n_bins, T]
        wav = _phases_to_wav(magnitude, audio, n_iter=n_iter, momentum=momentum, seed=seed)
    wav = wav[:n_samples]
    return wav / wav.abs().max().clamp(min=1.0)


def mel_to_magnitude(log_mel: Tensor, audio: AudioParams) -> Tensor:
    """The non-negative magnitudes whose mel is closest: [n_mels, T_mel] -> [filter_length / 2 + 1, T_mel].

    Multiplicative updates for the Kullback-Leibler divergence (Lee and Seung 2001, theorem 2): quiet channels count in
    proportion, as they do for the ear. Bins that no mel channel sees are 0.
    """
    basis = _basis_for(audio, log_mel.device)  # [n_mels, n_bins]
    mel = log_mel.exp()  # [n_mels, T_mel]
    weight = basis.sum(dim=0).unsqueeze(1) + TINY  # [n_bins, 1]
    magnitude = basis.T @ mel / weight  # [n_bins, T_mel]
    for _ in range(MEL_INVERSE_UPDATES):
        ratio = mel / (basis @ magnitude + TINY)
        magnitude = magnitude * (basis.T @ ratio) / weight
    n_unseen = audio.filter_length // 2 + 1 - len(magnitude)
    return torch.nn.functional.pad(magnitude, (0, 0, 0, n_unseen))


def _lengthened(log_mel: Tensor, audio: AudioParams) -> Tensor:
    """log_mel followed by silence if it is too short for the STFT to reflect its edges."""
    n_least = audio.filter_length // 2 // audio.hop_length + 2
    lacking = max(0, n_least - log_mel.shape[1])
    return torch.nn.functional.pad(log_mel, (0, lacking), value=silence_log_mel())


def _phases_to_wav(magnitude: Tensor, audio: AudioParams, *, n_iter: int, momentum: float, seed: int) -> Tensor:
    """[filter_length / 2 + 1, T] -> [(T - 1) * hop]."""
    window = _hann(audio.filter_length, audio.win_length, magnitude.device)

    def to_wav(spectrum: Tensor) -> Tensor:
        return torch.istft(spectrum, audio.filter_length, audio.hop_length, window=window)

    # drawn on the CPU, so that a seed means the same phases on every device
    random = torch.rand(magnitude.shape, generator=torch.Generator().manual_seed(seed)).to(magnitude.device)
    spectrum = torch.polar(magnitude, 2 * math.pi * random)
    previous = torch.zeros_like(spectrum)
    inertia = momentum / (1 + momentum)  # t + a (t - t_previous) up to the scale, which the phase ignores
    for _ in range(n_iter):
        consistent = torch.stft(
            to_wav(spectrum), audio.filter_length, audio.hop_length, window=window, return_complex=True
        )
        ahead = consistent - inertia * previous
        spectrum = ahead * (magnitude / (ahead.abs() + TINY))
        previous = consistent
    return to_wav(spectrum)
