"""A voice as ONNX says what the voice says: whole utterances against torch, and files that mean no good."""

import copy
import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from audio.griffin_lim import griffin_lim as griffin_lim_by_torch
from checkpointing import directory as checkpoint_dir
from checkpointing.checkpoint_file import Checkpoint
from common.errors import DataError, UserError
from data_utils import load_corpus
from exporting.card import Card, card_of
from exporting.files import export_onnx
from exporting.quantisation import in_int8
from model import Tacotron2
from player.archive import read_archive, write_archive
from player.voice import OnnxVoice
from speech.vocoders.vocoder import NeuralVocoder
from speech.voice import Voice
from support.paths import REPOSITORY
from support.vocoders import write_golden
from support.voices import Tiny
from training.voice_info import voice_info_of

SMALL = (
    "filter_length=64,hop_length=8,win_length=64,n_mel_channels=80,max_decoder_steps=400,n_frames_per_step=2,"
    "use_gst=True"
)
CARD = Card("anna", "CC BY 4.0", "tones", {"coverage": 0.5})
pytestmark = [
    pytest.mark.spec,  # the export takes ten seconds
    pytest.mark.filterwarnings("ignore:Empty filters"),  # 80 bands of a window of 64
]


@pytest.fixture(scope="module")
def voice(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Voice:
    """Two speakers, style tokens, two frames a step, and a vocoder of its own."""
    import warnings

    folder = tmp_path_factory.mktemp("voice")
    hp = tiny(SMALL)
    torch.manual_seed(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        info = replace(voice_info_of(hp, load_corpus(hp)), speakers=["anna", "boris"])
    model = Tacotron2(hp, n_speakers=2)
    checkpoint_dir.save(Checkpoint(3, model.state_dict(), info, None), folder / "checkpoints")
    generator = write_golden(folder / "generator")
    voice = Voice.load(folder)
    # without bf16, which a processor may have
    return replace(voice, chosen_vocoder=voice.fitting_vocoder(generator, precision="fp32"))


@pytest.fixture(scope="module")
def exported(voice: Voice, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "anna.zip"
    made = export_onnx(voice, path, CARD, is_int8=False)
    assert set(made.largest_difference) == {"encoder", "decoder_step", "postnet", "vocoder"}
    assert max(made.largest_difference.values()) < 1e-4 and made.n_bytes == path.stat().st_size
    return path


def test_a_vocoder_that_speaks_in_bf16_is_exported_in_fp32(voice: Voice, exported: Path) -> None:
    assert isinstance(voice.vocoder, NeuralVocoder)
    rounded = copy.deepcopy(voice.vocoder.generator).bfloat16()
    in_bf16 = replace(voice, chosen_vocoder=replace(voice.vocoder, generator=rounded, precision="bf16"))
    path = exported.with_name("of_bf16.zip")
    export_onnx(in_bf16, path, CARD, is_int8=False)
    assert path.read_bytes() == exported.read_bytes()


@pytest.fixture(scope="module")
def played(exported: Path) -> OnnxVoice:
    return OnnxVoice.load(exported)


def torch_with_masks(voice: Voice, text: str, name: str, masks: Iterator[np.ndarray], patch: pytest.MonkeyPatch) -> Any:
    """The voice by the definition of its loop, with the player's dropout in the place of torch's."""
    layers = (torch.from_numpy(mask) for pair in masks for mask in pair)
    patch.setattr("layers.dropout_mask", lambda *_, generator=None, **__: next(layers) if generator else None)
    patch.setattr(voice.model.decoder, "backend", "plain")
    return voice.speak([text], name=name)[0].sample


@pytest.mark.parametrize("name", ["anna", "boris"])
def test_a_whole_utterance_is_the_one_of_torch(
    voice: Voice, played: OnnxVoice, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "a low tone"
    (ids,) = played.read([text])
    said = played.say(ids, row=played.row_of(name), masks=played.masks(5))
    sample = torch_with_masks(voice, text, name, played.masks(5), monkeypatch)
    assert said.stop_reason == sample.stop_reason
    assert said.alignment.shape == sample.alignment.shape and np.abs(said.alignment - sample.alignment).max() < 1e-4
    assert said.mel.shape == sample.mel.shape and np.abs(said.mel - sample.mel).max() < 1e-4
    sound = played.sound_of(sample.mel, n_iter=1, seed=0)
    assert sound.shape == sample.wav.shape
    assert np.abs(sound - voice.vocoder(torch.from_numpy(sample.mel)).numpy()).max() < 1e-4


def test_speakers_and_seeds_differ_and_the_same_is_the_same(played: OnnxVoice) -> None:
    first, other, again = (played.synthesize("hi. ho.", speaker="anna", seed=seed) for seed in (1, 2, 1))
    boris = played.synthesize("hi. ho.", speaker="boris", seed=1)
    assert np.array_equal(first, again) and not np.array_equal(first[:200], other[:200])
    assert not np.array_equal(first[:200], boris[:200])
    with pytest.raises(UserError, match="the voice has anna, boris"):
        played.synthesize("hi", speaker="eve")
    with pytest.raises(UserError, match="the voice has anna, boris"):
        played.synthesize("hi")


def test_a_sentence_that_did_not_end_by_itself_is_warned_of(
    played: OnnxVoice, caplog: pytest.LogCaptureFixture
) -> None:
    deaf = replace(played, description=replace(played.description, gate_threshold=1.0, dwell_frames=10_000))
    deaf.synthesize("a low tone", speaker="anna")
    assert "'a low tone' was cut before the voice stopped: words may be missing" in caplog.text


@pytest.mark.parametrize("text", ["", "...", "a {QQ}"])
def test_what_cannot_be_read_is_one_message(played: OnnxVoice, text: str) -> None:
    with pytest.raises(DataError, match="problems? in the text"):
        played.synthesize(text, speaker="anna")


def test_without_a_vocoder_griffin_lim_speaks_as_torchs_does(voice: Voice, played: OnnxVoice) -> None:
    plain = replace(played, description=replace(played.description, vocoder=None))
    time_s = torch.arange(4000) / 8000
    from audio.mel import mel_spectrogram

    mel = mel_spectrogram(0.5 * torch.sin(2 * torch.pi * 440 * time_s), voice.hp)
    ours = torch.from_numpy(plain.sound_of(mel.numpy(), n_iter=30, seed=0))
    theirs = griffin_lim_by_torch(mel, voice.hp, n_iter=30, seed=0)
    assert ours.shape == theirs.shape

    def error(wav: torch.Tensor) -> float:
        return float((mel_spectrogram(wav, voice.hp) - mel)[:, 2:-2].abs().mean())

    assert error(ours) < 1.1 * error(theirs) + 0.02


def test_the_player_speaks_where_torch_cannot_be_imported(exported: Path, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None; sys.modules['scipy'] = None; sys.modules['librosa'] = None\n"
        "from player.__main__ import main\n"
        f"sys.exit(main([{str(exported)!r}, 'hi there', '-o', {str(tmp_path / 'a.wav')!r}, '--speaker', 'anna']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "real-time factor" in done.stdout and (tmp_path / "a.wav").read_bytes().startswith(b"RIFF")


def test_int8_is_smaller_and_near(exported: Path, played: OnnxVoice) -> None:
    archive = read_archive(exported)
    small = {name: in_int8(archive.graphs[name]) for name in ("encoder", "decoder_step")}
    rough = OnnxVoice.of(replace(archive, graphs={**archive.graphs, **small}))
    (ids,) = played.read(["a low tone"])
    exact, near = (each.say(ids, row=0, masks=each.masks(5)) for each in (played, rough))
    n = min(exact.mel.shape[1], near.mel.shape[1], 8)
    difference = np.abs(exact.mel[:, :n] - near.mel[:, :n]).mean()
    assert 0 < difference < 0.1 * np.abs(exact.mel).std() + 0.1


def test_the_archive_tells_licence_origin_and_mel_and_is_the_same_twice(exported: Path, tmp_path: Path) -> None:
    archive = read_archive(exported)
    assert archive.description.card == {**CARD.to_dict(), "measured": {"coverage": 0.5}}
    assert archive.description.mel_fingerprint["hop_length"] == 8
    write_archive(tmp_path / "again.zip", archive)
    assert (tmp_path / "again.zip").read_bytes() == exported.read_bytes()


def changed(exported: Path, path: Path, *, compression: int = zipfile.ZIP_STORED, **files: bytes | None) -> Path:
    """The archive with other contents for some files; None leaves one out."""
    with zipfile.ZipFile(exported) as old, zipfile.ZipFile(path, "w", compression) as new:
        contents = {name: old.read(name) for name in old.namelist()}
        contents |= {name.replace("__", "."): content for name, content in files.items() if content is not None}
        for name, content in contents.items():
            if name.replace(".", "__") not in files or files[name.replace(".", "__")] is not None:
                new.writestr(name, content)
    return path


def pickled() -> bytes:
    content = io.BytesIO()
    np.save(content, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return content.getvalue()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"voice__json": None}, "is not a readable voice"),
        ({"encoder__onnx": None}, "is not a readable voice"),
        ({"voice__json": b"{"}, "is not a readable voice"),
        ({"voice__json": b"[]"}, "no voice that export.py wrote"),
        ({"voice__json": b'{"format": "other"}'}, "no voice that export.py wrote"),
        ({"voice__json": b'{"format": "tacotron2 onnx voice", "version": 9}'}, "has version 9"),
        ({"voice__json": b'{"format": "tacotron2 onnx voice", "version": 1}'}, "is not a readable voice"),
        ({"mel_basis__npy": pickled()}, "is not a readable voice"),
        ({"encoder__onnx": b"no graph"}, "a graph of it can't be run"),
        ({"compression": zipfile.ZIP_DEFLATED}, "compressed"),
    ],
)
def test_a_bad_archive_is_refused_in_one_message(
    exported: Path, tmp_path: Path, files: dict[str, Any], message: str
) -> None:
    path = changed(exported, tmp_path / "bad.zip", **files)
    with pytest.raises(UserError, match=message):
        OnnxVoice.load(path)


@pytest.mark.parametrize("is_absolute", [False, True])
def test_a_graph_that_would_read_another_file_is_refused(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_absolute: bool
) -> None:
    import onnx
    from onnx import TensorProto, helper

    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.bin").write_bytes(bytes(16))
    weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    location = str(tmp_path / "secret.bin") if is_absolute else "secret.bin"
    weights.external_data.add(key="location", value=location)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", values[:1], values[1:], [weights])
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    with pytest.raises(UserError, match="a graph of it can't be run"):
        OnnxVoice.load(changed(exported, tmp_path / "bad.zip", postnet__onnx=model.SerializeToString()))


def test_a_file_that_is_no_zip_or_was_cut_is_refused(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.zip").write_bytes(exported.read_bytes()[:5000])
    (tmp_path / "text.zip").write_text("hello")
    for name in ("cut.zip", "text.zip", "absent.zip"):
        with pytest.raises(UserError, match="name a .zip that export.py wrote"):
            OnnxVoice.load(tmp_path / name)


def test_a_card_takes_what_evaluate_measured(tmp_path: Path) -> None:
    (tmp_path / "evaluation.json").write_text(json.dumps({"step": 3, "coverage": 0.9, "texts": [{}, {}]}))
    card = card_of("anna", licence="CC0", origin=None, evaluation=tmp_path)
    assert card.measured == {"step": 3, "coverage": 0.9, "texts": 2} and card.origin == "not stated"
    with pytest.raises(UserError, match="not written by evaluate.py"):
        card_of("anna", licence="CC0", origin=None, evaluation=tmp_path / "absent")
    with pytest.raises(UserError, match="--licence: from 1 to 2000"):
        card_of("anna", licence=" ", origin=None, evaluation=None)
