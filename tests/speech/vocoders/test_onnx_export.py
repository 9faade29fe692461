"""An exported vocoder needs no torch and sounds as torch does."""

import json
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from common.errors import UserError
from speech.vocoders import onnx_export
from speech.vocoders.mel_format import MelFormat
from speech.vocoders.onnx_export import export_graph
from speech.vocoders.vocoder import NeuralVocoder, load_vocoder
from support.vocoders import SMALL_MEL, golden, write_golden

NEEDED = ("onnxruntime", "onnxscript")  # imported by the tests: that takes a second, and every process reads this file
pytestmark = pytest.mark.skipif(not all(map(find_spec, NEEDED)), reason="pip install -r requirements-export.txt")


def small_vocoder(folder: Path, name: str) -> NeuralVocoder:
    vocoder = load_vocoder(write_golden(folder, name), SMALL_MEL, precision="fp32")
    assert isinstance(vocoder, NeuralVocoder)
    return vocoder


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("hifigan")
    return checked_graph(small_vocoder(folder, "hifigan_block2"), folder)


def checked_graph(vocoder: NeuralVocoder, folder: Path) -> bytes:
    content, largest_difference = export_graph(vocoder, folder / "vocoder.onnx")
    assert largest_difference < 1e-5
    return content


@pytest.mark.slow
def test_onnxruntime_makes_the_sound_of_hifigans_authors(exported: bytes) -> None:
    check_sound(exported, "hifigan_block2")


@pytest.mark.slow  # tracing takes 10 s
def test_onnxruntime_makes_the_sound_of_bigvgans_authors(tmp_path: Path) -> None:
    check_sound(checked_graph(small_vocoder(tmp_path, "bigvgan_v2"), tmp_path), "bigvgan_v2")


def check_sound(exported: bytes, name: str) -> None:
    import onnxruntime

    _, _, mel, expected = golden(name)
    session = onnxruntime.InferenceSession(exported)
    (sound,) = session.run(["sound"], {"mel": mel.numpy()})
    np.testing.assert_allclose(sound, expected.numpy(), rtol=0, atol=1e-5)
    for shape in ((1, 80, 1), (3, 80, 130)):  # neither batch nor length is fixed
        assert session.run(None, {"mel": np.zeros(shape, np.float32)})[0].shape == (shape[0], shape[2] * 8)


@pytest.mark.spec
def test_the_file_tells_a_player_all_it_needs(exported: bytes, tmp_path: Path) -> None:
    import onnxruntime

    vocoder = small_vocoder(tmp_path, "hifigan_block2")
    session = onnxruntime.InferenceSession(exported)
    told = session.get_modelmeta().custom_metadata_map
    assert json.loads(told["mel"]) == {**asdict(MelFormat.of_voice(SMALL_MEL)), "first_centre": 4}
    start, hop, reach = int(told["first_centre"]), int(told["hop_length"]), int(told["reach_frames"])
    mel = torch.randn(80, 90, generator=torch.Generator().manual_seed(0)) * 2 - 4
    expected = vocoder(mel).numpy()

    def raw(first: int, last: int) -> np.ndarray:
        return session.run(None, {"mel": mel[None, :, first:last].numpy()})[0][0]

    np.testing.assert_allclose(raw(0, 90)[start:][: 89 * hop], expected, rtol=0, atol=1e-5)
    chunk = raw(40 - reach, 50 + reach)[reach * hop : -reach * hop]
    np.testing.assert_allclose(chunk, expected[40 * hop - start : 50 * hop - start], rtol=0, atol=1e-5)


def test_a_file_that_would_sound_otherwise_is_refused(
    exported: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vocoder = small_vocoder(tmp_path, "hifigan_block2")
    vocoder.generator.conv_post.weight.mul_(1.01)
    monkeypatch.setattr(onnx_export, "_exported", lambda *_: exported)
    with pytest.raises(UserError, match="not written: onnxruntime's sound differs from torch's by"):
        export_graph(vocoder, tmp_path / "vocoder.onnx")
