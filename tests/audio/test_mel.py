"""Reading, writing and trimming recordings; the mel and its inverse."""

import json
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile
import torch

from audio import mel
from audio.griffin_lim import griffin_lim, mel_to_magnitude
from audio.mel import MelFingerprint, mel_spectrogram, silence_log_mel
from audio.recordings import probe_audio, read_audio, trim_silence, write_wav
from common.errors import DataError
from hparams import AudioParams
from support.paths import REPOSITORY, SHARED_DATA

RATE = 22050
DEFAULT = AudioParams()
NARROW = AudioParams(
    sampling_rate=16000,
    filter_length=512,
    hop_length=128,
    win_length=400,
    n_mel_channels=40,
    mel_fmin=50.0,
    mel_fmax=7600.0,
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tone(hz: float, *, rate: int = RATE, seconds: float = 0.5, level: float = 0.5) -> np.ndarray:
    return (level * np.sin(2 * np.pi * hz * np.arange(int(rate * seconds)) / rate)).astype(np.float32)


def chirp_in_noise(rate: int) -> np.ndarray:
    """0.4 s from 100 Hz to 0.4 of the rate; the last quarter is digital silence."""
    seconds = 0.4
    n_samples = int(rate * seconds)
    t = np.arange(n_samples) / rate
    noise = np.random.RandomState(0).uniform(-1, 1, n_samples)  # numpy froze this generator's stream
    wav = 0.5 * np.sin(2 * np.pi * (100 * t + 0.4 * rate / seconds / 2 * t * t)) + 0.02 * noise
    wav[3 * n_samples // 4 :] = 0
    return wav.astype(np.float32)


def voice_like(seconds: float = 1.0) -> torch.Tensor:
    """A gliding harmonic tone in faint noise."""
    t = np.arange(int(RATE * seconds)) / RATE
    phase = 2 * np.pi * (120 * t + 20 * t * t)
    wav = sum(np.sin(k * phase) / k for k in range(1, 20)) * (0.2 + 0.1 * np.sin(2 * np.pi * 3 * t))
    return torch.from_numpy((wav + 0.003 * np.random.RandomState(1).uniform(-1, 1, len(t))).astype(np.float32))


@pytest.mark.parametrize(("name", "params"), [("default", DEFAULT), ("narrow", NARROW)])
def test_log_mel_equals_the_reference_implementation(name: str, params: AudioParams) -> None:
    # golden: TacotronSTFT of NVIDIA/tacotron2 (June 2020) on the same signal, run on librosa 0.11
    golden = np.load(REPOSITORY / "tests" / "golden" / "audio" / "log_mel.npz")[name]
    log_mel = mel_spectrogram(torch.from_numpy(chirp_in_noise(params.sampling_rate)), params).numpy()
    assert log_mel.shape == golden.shape
    assert log_mel.dtype == np.float32
    np.testing.assert_allclose(log_mel, golden, rtol=0, atol=1e-4)
    assert golden.min() == pytest.approx(silence_log_mel(), abs=1e-6)


def test_a_channel_near_the_floor_beside_a_loud_one_is_exact() -> None:
    wav = tone(300, level=0.9) + 3e-5 * np.random.RandomState(0).uniform(-1, 1, RATE // 2).astype(np.float32)
    padded = np.pad(wav.astype(np.float64), 512, mode="reflect")
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1024) / 1024)
    window = hann.astype(np.float32)  # its rounding is part of the format
    frames = np.lib.stride_tricks.sliding_window_view(padded, 1024)[::256]
    filters = librosa.filters.mel(sr=RATE, n_fft=1024, n_mels=80, fmin=0.0, fmax=8000.0, dtype=np.float64)
    exact = np.log(np.maximum(filters @ np.abs(np.fft.rfft(frames * window)).T, 1e-5))
    assert exact.min() < -10  # float32 transforms miss this by 1e-2
    np.testing.assert_allclose(mel_spectrogram(torch.from_numpy(wav), DEFAULT).numpy(), exact, rtol=0, atol=1e-5)


@pytest.mark.parametrize("n_samples", [1, 100, 255, 256, 512, 513, 1024, 22050])
def test_number_of_frames_is_samples_over_hop_plus_one_for_any_length(n_samples: int) -> None:
    assert mel_spectrogram(torch.zeros(n_samples), DEFAULT).shape == (80, n_samples // 256 + 1)


@pytest.mark.parametrize("n_samples", [1, 300, 5000])
def test_silence_maps_to_the_floor(n_samples: int) -> None:
    log_mel = mel_spectrogram(torch.zeros(n_samples), DEFAULT)
    assert silence_log_mel() == math.log(1e-5)
    torch.testing.assert_close(log_mel, torch.full_like(log_mel, math.log(1e-5)))


def test_a_batch_gives_the_mels_of_its_rows() -> None:
    wavs = torch.stack([torch.from_numpy(chirp_in_noise(RATE)), torch.from_numpy(tone(440, seconds=0.4))])
    batched = mel_spectrogram(wavs.reshape(1, 2, -1), DEFAULT)
    assert batched.shape == (1, 2, 80, 8820 // 256 + 1)
    for row in range(2):
        # linear, because products of other shapes round the near-silent channels differently
        torch.testing.assert_close(batched[0, row].exp(), mel_spectrogram(wavs[row], DEFAULT).exp())


def test_autocast_does_not_change_the_mel() -> None:
    wav = torch.from_numpy(chirp_in_noise(RATE))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = mel_spectrogram(wav, DEFAULT)
    assert torch.equal(under_autocast, mel_spectrogram(wav, DEFAULT))


def test_a_first_call_in_inference_mode_leaves_later_gradients_possible() -> None:
    mel._mel_basis.cache_clear()
    mel._hann.cache_clear()
    with torch.inference_mode():
        mel_spectrogram(torch.from_numpy(chirp_in_noise(RATE)), DEFAULT)
    wav = torch.from_numpy(chirp_in_noise(RATE)).requires_grad_()
    mel_spectrogram(wav, DEFAULT).sum().backward()
    assert wav.grad.abs().max() > 0


def test_parameters_that_differ_in_fmax_only_do_not_share_a_filterbank() -> None:
    wav = torch.from_numpy(chirp_in_noise(RATE))
    narrow = mel_spectrogram(wav, DEFAULT)
    wide = mel_spectrogram(wav, AudioParams(mel_fmax=11025.0))
    assert (narrow - wide).abs().max() > 0.5


@pytest.mark.parametrize(
    ("extension", "subtype", "tolerance"),  # one step of the integer format; lossy: by trial
    [
        ("wav", "PCM_U8", 2**-7),
        ("wav", "PCM_16", 2**-15),
        ("wav", "PCM_24", 2**-23),
        ("wav", "PCM_32", 2**-23),
        ("wav", "FLOAT", 0),
        ("wav", "DOUBLE", 0),
        ("flac", "PCM_16", 2**-15),
        ("flac", "PCM_24", 2**-23),
        ("ogg", "VORBIS", 0.05),
    ],
)
def test_every_depth_arrives_as_float32_of_the_same_level(
    tmp_path: Path, extension: str, subtype: str, tolerance: float
) -> None:
    path = tmp_path / f"a.{extension}"
    wav = tone(440)
    soundfile.write(path, wav, RATE, subtype=subtype)
    read = read_audio(path, DEFAULT)
    assert read.dtype == np.float32
    assert read.shape == wav.shape
    np.testing.assert_allclose(read, wav, rtol=0, atol=tolerance)


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_channels_are_averaged(tmp_path: Path, channels: int) -> None:
    path = tmp_path / "a.wav"
    wavs = np.stack([tone(200.0 * (k + 1)) for k in range(channels)], axis=1)
    soundfile.write(path, wavs, RATE, subtype="FLOAT")
    np.testing.assert_allclose(read_audio(path, DEFAULT), wavs.mean(axis=1), atol=1e-7)


@pytest.mark.parametrize("rate", [8000, 16000, 24000, 44100, 48000, 96000])
def test_resampling_keeps_pitch_level_and_duration(tmp_path: Path, rate: int) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(440, rate=rate), rate, subtype="FLOAT")
    read = read_audio(path, DEFAULT)
    assert abs(len(read) - RATE // 2) <= 1
    inner = slice(2000, -2000)  # the ends ring
    np.testing.assert_allclose(read[: RATE // 2 - 1][inner], tone(440)[: RATE // 2 - 1][inner], atol=1e-3)


def test_resampling_removes_what_the_lower_rate_cannot_hold(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(15000, rate=48000), 48000, subtype="FLOAT")
    assert np.abs(read_audio(path, DEFAULT)[2000:-2000]).max() < 1e-4


@pytest.mark.parametrize("resample", [True, False])
def test_a_recording_at_the_right_rate_keeps_every_bit(tmp_path: Path, resample: bool) -> None:
    path = tmp_path / "a.wav"
    wav = chirp_in_noise(RATE)
    soundfile.write(path, wav, RATE, subtype="FLOAT")
    assert np.array_equal(read_audio(path, AudioParams(resample=resample)), wav)


def test_another_rate_is_an_error_when_resampling_is_off(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(440, rate=44100), 44100)
    with pytest.raises(DataError, match=r"a\.wav is 44100 Hz but sampling_rate=22050 .*--hparams sampling_rate=44100"):
        read_audio(path, AudioParams(resample=False))


@pytest.mark.parametrize(("subtype", "gain"), [("PCM_16", 2.0), ("PCM_24", 1.0), ("FLOAT", 1.0)])
def test_max_wav_value_divides_16_bit_integers_only(tmp_path: Path, subtype: str, gain: float) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(440, level=0.25), RATE, subtype=subtype)
    louder = read_audio(path, AudioParams(max_wav_value=16384.0))
    np.testing.assert_allclose(louder, gain * read_audio(path, DEFAULT))


def test_probe_reports_the_file_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, np.zeros((24000, 2)), 48000)
    info = probe_audio(path)
    assert (info.sampling_rate, info.channels, info.n_samples, info.duration_s) == (48000, 2, 24000, 0.5)


def write_broken(path: Path, kind: str) -> None:
    if kind == "directory":
        path.mkdir()
    elif kind == "zero bytes":
        path.touch()
    elif kind == "text":
        path.write_text("this is no recording\n" * 50)
    elif kind == "no samples":
        soundfile.write(path, np.zeros(0), RATE)


@pytest.mark.parametrize("read", [probe_audio, lambda path: read_audio(path, DEFAULT)], ids=["probe", "read"])
@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("missing", "a.wav", r"a\.wav is no file; correct the path"),
        ("directory", "a.wav", r"a\.wav is no file; correct the path"),
        ("zero bytes", "a.wav", r"a\.wav is empty \(0 bytes\); restore it"),
        ("text", "a.wav", r"a\.wav can't be read as audio \(.*\); convert it to WAV or FLAC"),
        ("text", "a.raw", r"a\.raw can't be read as audio \(.*\); convert it to WAV or FLAC"),
        ("no samples", "a.wav", r"a\.wav has a header but no samples; restore it"),
    ],
)
def test_a_bad_file_is_named_with_what_to_do(
    tmp_path: Path, read: Callable[[Path], object], kind: str, name: str, message: str
) -> None:
    path = tmp_path / name
    write_broken(path, kind)
    with pytest.raises(DataError, match=message):
        read(path)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_finite_are_an_error(tmp_path: Path, bad: float) -> None:
    path = tmp_path / "a.wav"
    wavs = np.zeros((100, 2), dtype=np.float32)
    wavs[3] = [bad, -bad]
    soundfile.write(path, wavs, RATE, subtype="FLOAT")
    with pytest.raises(DataError, match=r"a\.wav holds 2 samples that are NaN or infinite; export it again"):
        read_audio(path, DEFAULT)


@pytest.mark.parametrize("extension", ["flac", "mp3"])
def test_a_recording_cut_short_is_an_error_not_a_shorter_recording(tmp_path: Path, extension: str) -> None:
    if extension.upper() not in soundfile.available_formats():
        pytest.skip(f"this libsndfile knows no {extension}")
    path = tmp_path / f"a.{extension}"
    soundfile.write(path, chirp_in_noise(RATE), RATE)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=r"a\.\w+ is (truncated|damaged).*; restore it"):
        read_audio(path, DEFAULT)


def test_a_recording_too_short_to_resample_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(1), 192000)
    with pytest.raises(DataError, match=r"a\.wav is too short to resample from 192000 Hz to 22050 Hz; drop it"):
        read_audio(path, DEFAULT)


def test_a_16_bit_recording_read_and_written_keeps_every_bit(tmp_path: Path) -> None:
    every_value = np.arange(-32768, 32768, dtype=np.int16)
    soundfile.write(tmp_path / "a.wav", every_value, RATE)
    write_wav(tmp_path / "b.wav", read_audio(tmp_path / "a.wav", DEFAULT), RATE)
    written, rate = soundfile.read(tmp_path / "b.wav", dtype="int16")
    assert rate == RATE
    assert np.array_equal(written, every_value)


def test_clipping_is_logged_with_its_count(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        write_wav(tmp_path / "a.wav", np.array([0.0, 1.0, 1.5, -2.0], dtype=np.float32), RATE)
    assert "2 samples were too loud and are clipped (peak 2.000" in caplog.text
    assert soundfile.read(tmp_path / "a.wav", dtype="int16")[0].tolist() == [0, 32767, 32767, -32768]


def test_a_signal_with_nan_is_refused_and_the_old_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    write_wav(path, tone(440), RATE)
    before = path.read_bytes()
    with pytest.raises(DataError, match=r"a\.wav not written: .* NaN"):
        write_wav(path, np.array([0.0, np.nan]), RATE)
    assert path.read_bytes() == before


def test_a_failed_write_leaves_no_temporary_file(tmp_path: Path) -> None:
    (tmp_path / "a.wav").mkdir()  # the final rename fails on it
    with pytest.raises(OSError, match=r"a\.wav"):
        write_wav(tmp_path / "a.wav", tone(440), RATE)
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]


def test_trimming_keeps_10_ms_before_and_30_ms_after_the_voice() -> None:
    voice = tone(441, seconds=0.5)[: 100 * 110]
    wav = np.concatenate([np.zeros(50 * 110, np.float32), voice, np.zeros(70 * 110, np.float32)])
    trimmed = trim_silence(wav, sampling_rate=RATE)
    assert np.array_equal(trimmed, wav[48 * 110 : 156 * 110])


@pytest.mark.parametrize(("level_db", "kept"), [(-38.0, True), (-42.0, False)])
def test_trimming_threshold_is_40_db_under_the_loudest_frame(level_db: float, kept: bool) -> None:
    faint = tone(441)[: 20 * 110] * 10 ** (level_db / 20)
    wav = np.concatenate([faint, tone(441)[: 100 * 110]])
    assert (len(trim_silence(wav, sampling_rate=RATE)) == len(wav)) is kept


@pytest.mark.parametrize(
    "wav",
    [np.zeros(5000, np.float32), np.ones(50, np.float32), np.zeros(0, np.float32), np.ones(5000, np.float32)],
    ids=["silence", "shorter than a frame", "nothing", "loud throughout"],
)
def test_what_has_no_quiet_ends_is_not_trimmed(wav: np.ndarray) -> None:
    assert np.array_equal(trim_silence(wav, sampling_rate=RATE), wav)


def spectral_convergence_db(wav: torch.Tensor, magnitude: torch.Tensor) -> float:
    """20 log10 of |STFT(wav)| - magnitude relative to magnitude, both Frobenius norms."""
    reached = torch.stft(wav, 1024, 256, window=torch.hann_window(1024), return_complex=True).abs()
    return 20 * math.log10((reached - magnitude).norm() / magnitude.norm())


def test_griffin_lim_reaches_a_consistent_signal_with_the_same_mel() -> None:
    log_mel = mel_spectrogram(voice_like(), DEFAULT)
    wav = griffin_lim(log_mel, DEFAULT)
    assert wav.dtype == torch.float32
    assert spectral_convergence_db(wav, mel_to_magnitude(log_mel, DEFAULT)) < -15
    assert (mel_spectrogram(wav, DEFAULT) - log_mel).abs().mean() < 0.15


def test_griffin_lim_of_a_recording_has_the_mel_of_the_recording() -> None:
    recordings = sorted((SHARED_DATA / "kathleen" / "wavs").glob("*.flac"))
    if not recordings:
        pytest.skip(f"no recordings under {SHARED_DATA / 'kathleen'} (set TACOTRON2_TEST_DATA)")
    log_mel = mel_spectrogram(torch.from_numpy(read_audio(recordings[0], DEFAULT)), DEFAULT)
    wav = griffin_lim(log_mel, DEFAULT)
    assert spectral_convergence_db(wav, mel_to_magnitude(log_mel, DEFAULT)) < -15
    assert (mel_spectrogram(wav, DEFAULT) - log_mel).abs().mean() < 0.12


def test_momentum_brings_griffin_lim_closer_in_the_same_time() -> None:
    log_mel = mel_spectrogram(voice_like(), DEFAULT)
    magnitude = mel_to_magnitude(log_mel, DEFAULT)
    fast = spectral_convergence_db(griffin_lim(log_mel, DEFAULT, n_iter=30), magnitude)
    plain = spectral_convergence_db(griffin_lim(log_mel, DEFAULT, n_iter=30, momentum=0.0), magnitude)
    assert fast < plain - 1


def test_griffin_lim_repeats_its_bits_for_a_seed_and_follows_it() -> None:
    log_mel = mel_spectrogram(voice_like(0.3), DEFAULT)
    first = griffin_lim(log_mel, DEFAULT, n_iter=5, seed=3)
    torch.rand(7)  # the global generator must not matter
    assert torch.equal(first, griffin_lim(log_mel, DEFAULT, n_iter=5, seed=3))
    assert not torch.equal(first, griffin_lim(log_mel, DEFAULT, n_iter=5, seed=4))


@pytest.mark.parametrize(("n_frames", "n_samples"), [(1, 256), (2, 256), (3, 512), (4, 768), (40, 39 * 256)])
def test_griffin_lim_gives_a_hop_of_samples_per_step_between_frames(n_frames: int, n_samples: int) -> None:
    assert griffin_lim(torch.zeros(80, n_frames), DEFAULT, n_iter=2).shape == (n_samples,)


@pytest.mark.parametrize("params", [DEFAULT, NARROW], ids=["default", "narrow"])
def test_griffin_lim_scales_what_would_clip_and_only_that(params: AudioParams) -> None:
    n_mels = params.n_mel_channels
    assert griffin_lim(torch.full((n_mels, 20), 3.0), params, n_iter=3).abs().max() == pytest.approx(1.0)
    assert griffin_lim(torch.full((n_mels, 20), -6.0), params, n_iter=3).abs().max() < 0.1


def test_mel_inverse_reproduces_the_mel_and_is_zero_over_fmax() -> None:
    log_mel = mel_spectrogram(voice_like(0.5), DEFAULT)
    magnitude = mel_to_magnitude(log_mel, DEFAULT)
    basis = mel._basis_for(DEFAULT, magnitude.device)
    assert magnitude.shape == (513, log_mel.shape[1])
    assert magnitude.min() >= 0
    assert not magnitude[basis.shape[1] :].any()
    assert ((basis @ magnitude[: basis.shape[1]]).log() - log_mel).abs().max() < 0.1


CHANGES = {
    "max_wav_value": 16384.0,
    "sampling_rate": 24000,
    "filter_length": 2048,
    "hop_length": 200,
    "win_length": 800,
    "n_mel_channels": 100,
    "mel_fmin": 50.0,
    "mel_fmax": 7600.0,
}


def test_fingerprint_of_the_defaults_keeps_its_digest() -> None:
    # names caches and is kept in checkpoints: a new value here makes all of them stale
    assert MelFingerprint.of(AudioParams()).digest == "61cfa240be70f43a"


@pytest.mark.parametrize("name", CHANGES)
def test_fingerprint_follows_each_parameter_that_shapes_a_mel(name: str) -> None:
    ours = MelFingerprint.of(DEFAULT)
    theirs = MelFingerprint.of(AudioParams(**{name: CHANGES[name]}))
    assert ours.digest != theirs.digest
    assert ours.differences(theirs.to_dict()) == [f"{name}: {getattr(DEFAULT, name)} here, {CHANGES[name]} there"]


def test_fingerprint_differs_by_format_version() -> None:
    ours = MelFingerprint.of(DEFAULT)
    theirs = replace(ours, format_version=ours.format_version + 1)
    assert ours.digest != theirs.digest
    assert ours.differences(theirs.to_dict()) == ["format_version: 1 here, 2 there"]


def test_fingerprint_ignores_whether_resampling_is_allowed() -> None:
    assert MelFingerprint.of(AudioParams(resample=False)) == MelFingerprint.of(DEFAULT)


def test_fingerprint_survives_json_even_if_floats_become_integers() -> None:
    fingerprint = MelFingerprint.of(DEFAULT)
    values = json.loads(json.dumps(fingerprint.to_dict())) | {"mel_fmax": 8000}
    assert MelFingerprint.from_dict(values).digest == fingerprint.digest
    assert fingerprint.differences(values) == []


def test_fingerprint_with_missing_or_unknown_fields_is_an_error() -> None:
    values = MelFingerprint.of(DEFAULT).to_dict() | {"mel_norm": 1}
    del values["mel_fmax"]
    with pytest.raises(DataError, match=r"no mel_fmax, unknown mel_norm; compute the mels anew"):
        MelFingerprint.from_dict(values)
