"""What HiFi-GAN is fine-tuned on: its frames, its file names, and each mel at its sound."""

from collections.abc import Sequence
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch
from scipy.io import wavfile

from audio.mel import MelFingerprint, mel_spectrogram
from common.errors import DataError
from hparams import AudioParams
from speech.vocoders.hifigan_dataset import Clip, unique_names, write_hifigan_dataset

AUDIO = AudioParams()
MEL = MelFingerprint.of(AUDIO)
RATE, HOP, N_FFT = 22050, 256, 1024


def syllables(n_samples: int, *, seed: int = 0) -> np.ndarray:
    """Gliding harmonics that come and go twelve times a second: a mel that changes from frame to frame."""
    random = np.random.default_rng(seed)
    time_s = np.arange(n_samples) / RATE
    pitch = 120 + 60 * np.sin(2 * np.pi * 1.3 * time_s)
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    voice = sum(np.sin(k * phase) / k for k in range(1, 25))
    loudness = 0.5 + 0.5 * np.sign(np.sin(2 * np.pi * 12 * time_s))
    return (0.1 * loudness * voice + 0.002 * random.standard_normal(n_samples)).astype(np.float32)


def hifigan_mel(wav: np.ndarray) -> np.ndarray:
    """[L] -> [80, L // 256], by HiFi-GAN's definition: 384 samples reflected at both ends, frames not centred."""
    padded = np.pad(wav.astype(np.float64), (N_FFT - HOP) // 2, mode="reflect")
    spectrum = librosa.stft(padded, n_fft=N_FFT, hop_length=HOP, window="hann", center=False)
    magnitude = np.sqrt(np.abs(spectrum) ** 2 + 1e-9)
    basis = librosa.filters.mel(sr=RATE, n_fft=N_FFT, n_mels=80, fmin=0, fmax=8000)
    return np.log(np.maximum(basis @ magnitude, 1e-5))


def clip_of(name: str, wav: np.ndarray, **settings: bool) -> Clip:
    return Clip(name, f"text of {name}", wav, mel_spectrogram(torch.from_numpy(wav), AUDIO), **settings)


def read_pair(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """As HiFi-GAN's MelDataset reads them in fine-tuning."""
    rate, samples = wavfile.read(folder / "wavs" / f"{name}.wav")
    assert rate == RATE
    assert samples.dtype == np.int16
    return samples / 32768.0, np.load(folder / "mels" / f"{name}.npy")


@pytest.mark.parametrize("n_samples", [20000, 78 * HOP, 78 * HOP + 1, 79 * HOP - 1])
def test_recorded_mels_are_those_that_hifigan_computes_itself(n_samples: int, tmp_path: Path) -> None:
    write_hifigan_dataset(tmp_path, [clip_of("a", syllables(n_samples))], MEL)
    wav, mel = read_pair(tmp_path, "a")
    assert mel.dtype == np.float32
    assert mel.shape == (80, n_samples // HOP)
    assert len(wav) == mel.shape[1] * HOP
    own = hifigan_mel(wav)
    # but for what lies beyond the ends, which both reflect, about samples half a hop apart
    np.testing.assert_allclose(mel[:, 2:-2], own[:, 2:-2], rtol=0, atol=0.05)
    assert np.abs(mel - own)[:, 2:-2].mean() < 0.002
    assert np.abs(mel - own).mean() < 0.05


def best_shift(mel: np.ndarray, wav: np.ndarray, shifts: Sequence[int]) -> int:
    """By how many samples the sound must be moved for HiFi-GAN's mel of it to come closest to mel."""
    distances = [np.abs(hifigan_mel(np.roll(wav, shift))[:, 4:-4] - mel[:, 4:-4]).mean() for shift in shifts]
    return shifts[int(np.argmin(distances))]


def test_mels_lie_on_their_sound_to_far_less_than_half_a_hop(tmp_path: Path) -> None:
    recording = syllables(30000)
    write_hifigan_dataset(tmp_path, [clip_of("a", recording)], MEL)
    wav, mel = read_pair(tmp_path, "a")
    shifts = range(-256, 257, 16)
    assert best_shift(mel, wav, shifts) == 0
    # and what would be: the recording as it was is half a hop off
    assert best_shift(mel, recording[: len(wav)].astype(np.float64), shifts) == 128


def test_a_predicted_mel_is_written_as_it_is_without_its_last_frame(tmp_path: Path) -> None:
    wav = syllables(20000)
    predicted = torch.randn(80, 20000 // HOP + 1)
    write_hifigan_dataset(tmp_path, [Clip("a", "", wav, predicted)], MEL)
    np.testing.assert_array_equal(read_pair(tmp_path, "a")[1], predicted[:, :-1].numpy())


def test_filelists_and_command_are_those_of_hifigan(tmp_path: Path) -> None:
    clips = [clip_of("a", syllables(20000)), clip_of("b", syllables(20000), is_validation=True)]
    clips.append(Clip("c", "two\nlines", clips[0].wav, clips[0].log_mel))
    written = write_hifigan_dataset(tmp_path / "set", clips, MEL)
    assert (written.n_training, written.n_validation, written.too_short) == (2, 1, ())
    assert (tmp_path / "set/training.txt").read_text() == "a|text of a\nc|two lines\n"
    assert (tmp_path / "set/validation.txt").read_text() == "b|text of b\n"
    assert f"--input_mels_dir '{tmp_path}/set/mels'" in written.command
    for line in (tmp_path / "set/training.txt").read_text().splitlines():
        name = line.split("|")[0]  # as get_dataset_filelist and MelDataset find the files
        assert (tmp_path / "set/wavs" / f"{name}.wav").is_file()
        assert (tmp_path / "set/mels" / f"{name}.npy").is_file()


def test_clips_that_hifigan_cannot_cut_a_segment_from_are_left_out(tmp_path: Path) -> None:
    # it draws the start from randint(0, frames - 33), and fills what is shorter with mels of 0, which are loud
    lengths = {"short": 8000, "32_frames": 33 * HOP - 1, "33_frames": 33 * HOP}
    clips = [clip_of(name, syllables(n_samples)) for name, n_samples in lengths.items()]
    written = write_hifigan_dataset(tmp_path, clips, MEL)
    assert written.too_short == ("short", "32_frames")
    assert (tmp_path / "training.txt").read_text() == "33_frames|text of 33_frames\n"


def test_every_mel_that_is_not_its_recordings_is_named(tmp_path: Path) -> None:
    wav = syllables(20000)
    mel = mel_spectrogram(torch.from_numpy(wav), AUDIO)
    broken = mel.clone()
    broken[0, 0] = float("nan")
    clips = [Clip("good", "", wav, mel), Clip("long", "", wav, mel[:, :-3]), Clip("nan", "", wav, broken)]
    with pytest.raises(DataError, match="2 mel") as caught:
        write_hifigan_dataset(tmp_path, clips, MEL)
    assert "long: mel [80, 76], but 20000 samples make [80, 79]" in str(caught.value)
    assert "nan: mel holds NaN" in str(caught.value)
    assert not (tmp_path / "training.txt").exists()


def test_recordings_of_one_name_get_their_folders_names_too() -> None:
    paths = [Path("wavs/anna/001.wav"), Path("wavs/boris/001.wav"), Path("wavs/boris/002.flac")]
    assert unique_names(paths) == ["wavs_anna_001", "wavs_boris_001", "002"]
    assert unique_names([Path("a|b.wav")]) == ["a_b"]
    with pytest.raises(DataError, match="1 name.*HiFi-GAN finds mels by name"):
        unique_names([Path("a/b/c/1.wav"), Path("x/b/c/1.wav")][:1] * 2)
