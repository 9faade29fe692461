"""Fast Griffin-Lim in numpy: the maths of `audio.griffin_lim`, without torch."""

import numpy as np

MEL_INVERSE_UPDATES = 60
MOMENTUM = 0.99
TINY = 1e-12
SILENCE = float(np.log(1e-5))


def griffin_lim(
    log_mel: np.ndarray, basis: np.ndarray, *, n_fft: int, hop: int, win: int, n_iter: int = 60, seed: int = 0
) -> np.ndarray:
    """[n_mels, T] -> float32 [(T - 1) * hop], |x| <= 1; a single frame gives hop samples. basis [n_mels, n_bins]."""
    n_samples = max(log_mel.shape[1] - 1, 1) * hop
    lacking = max(0, n_fft // 2 // hop + 2 - log_mel.shape[1])
    mel = np.pad(log_mel, ((0, 0), (0, lacking)), constant_values=SILENCE)
    magnitude = mel_to_magnitude(mel, basis, n_bins=n_fft // 2 + 1)
    window = centred_hann(n_fft, win)
    wav = _with_phases(magnitude, window, hop, n_iter=n_iter, seed=seed)[:n_samples]
    return (wav / max(1.0, float(np.abs(wav).max(initial=0.0)))).astype(np.float32)


def mel_to_magnitude(log_mel: np.ndarray, basis: np.ndarray, *, n_bins: int) -> np.ndarray:
    """[n_mels, T] -> [n_bins, T], by multiplicative updates (Lee and Seung 2001, theorem 2)."""
    mel = np.exp(log_mel, dtype=np.float32)
    weight = basis.sum(axis=0)[:, None] + TINY
    magnitude = basis.T @ mel / weight
    for _ in range(MEL_INVERSE_UPDATES):
        magnitude = magnitude * (basis.T @ (mel / (basis @ magnitude + TINY))) / weight
    return np.pad(magnitude, ((0, n_bins - len(magnitude)), (0, 0)))


def centred_hann(n_fft: int, win: int) -> np.ndarray:
    """Periodic Hann window of win samples in the middle of n_fft."""
    left = (n_fft - win) // 2
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(win) / win)
    return np.pad(hann, (left, n_fft - win - left)).astype(np.float32)


def _with_phases(magnitude: np.ndarray, window: np.ndarray, hop: int, *, n_iter: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed).random(magnitude.shape, dtype=np.float32)
    spectrum = magnitude * np.exp(2j * np.pi * random).astype(np.complex64)
    previous = np.zeros_like(spectrum)
    inertia = np.float32(MOMENTUM / (1 + MOMENTUM))
    for _ in range(n_iter):
        consistent = stft(istft(spectrum, window, hop), window, hop)
        ahead = consistent - inertia * previous
        spectrum = ahead * (magnitude / (np.abs(ahead) + TINY)).astype(np.float32)
        previous = consistent
    return istft(spectrum, window, hop)


def stft(wav: np.ndarray, window: np.ndarray, hop: int) -> np.ndarray:
    """[L] -> [n_fft / 2 + 1, L // hop + 1], frames centred, edges reflected."""
    n_fft = len(window)
    padded = np.pad(wav, n_fft // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[::hop]
    return np.fft.rfft(frames * window).T.astype(np.complex64)


def istft(spectrum: np.ndarray, window: np.ndarray, hop: int) -> np.ndarray:
    """[n_fft / 2 + 1, T] -> [(T - 1) * hop], overlapped and divided by the window's energy."""
    n_fft, n_frames = len(window), spectrum.shape[1]
    frames = np.fft.irfft(spectrum.T, n_fft).astype(np.float32) * window  # [T, n_fft]
    total = overlapped(frames, hop)
    energy = overlapped(np.broadcast_to(window**2, frames.shape), hop)
    inside = slice(n_fft // 2, n_fft // 2 + (n_frames - 1) * hop)
    return total[inside] / np.maximum(energy[inside], TINY)


def overlapped(frames: np.ndarray, hop: int) -> np.ndarray:
    """[T, n] -> [(T - 1) * hop + n], each frame added hop samples after the one before."""
    n_frames, n = frames.shape
    n_blocks = -(-n // hop)
    blocks = np.pad(frames, ((0, 0), (0, n_blocks * hop - n))).reshape(n_frames, n_blocks, hop)
    total = np.zeros((n_frames + n_blocks - 1, hop), np.float32)
    for i in range(n_blocks):
        total[i : i + n_frames] += blocks[:, i]
    return total.reshape(-1)[: (n_frames - 1) * hop + n]
