"""A trained voice from disk: run directories, files, NVIDIA's weights, and texts that can't be read."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from checkpointing import checkpoint_file
from checkpointing import directory as checkpoint_dir
from checkpointing.checkpoint_file import Checkpoint, VoiceInfo
from common.errors import DataError, NothingToRecover, UserError
from data_utils import load_corpus
from hparams import create_hparams
from model import Decoder, Tacotron2
from speech.vocoders.vocoder import NeuralVocoder
from speech.voice import Speaker, Voice, read_texts, usable
from support.vocoders import write_golden
from support.voices import Tiny, save_voice
from text.front_end import FrontEnd
from training.voice_info import voice_info_of


@pytest.fixture
def voice(tiny: Tiny, tmp_path: Path) -> Path:
    """The stripped checkpoint of a run directory tmp_path/run."""
    hp = tiny()
    return save_voice(hp, load_corpus(hp), tmp_path / "run")


def test_a_run_and_its_file_are_the_same_voice(voice: Path) -> None:
    by_run, by_file = (Speaker.load(path).speak(["hi"])[0].sample for path in (voice.parent.parent, voice))
    assert by_run.wav is not None and by_file.wav is not None
    assert by_run.wav.tobytes() == by_file.wav.tobytes() and np.isfinite(by_run.wav).all() and by_run.wav.any()


@pytest.mark.filterwarnings("ignore:Empty filters detected")  # 80 mels of so few bins
def test_network_and_vocoder_lie_on_the_device_that_was_asked_for(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hp = tiny("filter_length=64,hop_length=8,win_length=64,n_mel_channels=80,use_gst=True")
    save_voice(hp, load_corpus(hp), tmp_path / "run")
    generator = write_golden(tmp_path / "generator")
    meta = torch.device("meta")  # which holds no numbers, so whatever is left on the processor can be told
    monkeypatch.setattr("speech.voice.device_of", lambda wanted: {"cuda:1": meta}[wanted])
    voice = Voice.load(tmp_path / "run", vocoder=generator, device="cuda:1")
    vocoder = voice.vocoder
    assert isinstance(vocoder, NeuralVocoder) and voice.device == vocoder.device == meta
    tensors = [*voice.model.state_dict().values(), *vocoder.generator.state_dict().values(), voice.style_token(1, 1.0)]
    assert {tensor.device for tensor in tensors} == {meta}


def test_a_run_speaks_with_its_best_checkpoint(tiny: Tiny, voice: Path) -> None:
    hp = tiny()
    save_voice(hp, load_corpus(hp), voice.parent.parent, step=9, seed=2)
    checkpoint_dir.point(voice.parent, "best", voice)
    assert Speaker.load(voice.parent.parent).step == 3


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(voice: Path) -> None:
    a, b, c = (Speaker.load(voice).speak(["hi there"], seed=seed)[0].sample for seed in (5, 5, 6))
    assert a.wav is not None and b.wav is not None and c.wav is not None
    assert a.wav.tobytes() == b.wav.tobytes() != c.wav.tobytes()
    assert not np.array_equal(a.mel[:, :5], c.mel[:, :5])  # the prenet's dropout speaks too, not only the vocoder


@pytest.mark.parametrize("rate", [None, 0.0])
def test_without_prenet_dropout_every_seed_predicts_the_same_mel(voice: Path, rate: float | None) -> None:
    speaker = Speaker.load(voice, prenet_dropout=rate)
    one, two = (speaker.speak(["hi"], seed=seed, n_iter=1)[0].sample.mel[:, :5] for seed in (1, 2))
    assert np.array_equal(one, two) == (rate == 0)


def test_a_text_does_not_depend_on_its_neighbours(voice: Path) -> None:
    speaker = Speaker.load(voice)
    alone, beside = speaker.speak(["hi"])[0].sample, speaker.speak(["a longer one", "hi"])[1].sample
    assert np.array_equal(alone.mel, beside.mel)


def test_mels_come_out_as_log_mels(tiny: Tiny, tmp_path: Path) -> None:
    hp = tiny()
    corpus = load_corpus(hp)
    save_voice(hp, corpus, tmp_path)
    speaker = Speaker.load(tmp_path)
    assert speaker.stats == corpus.stats and corpus.stats.std > 1.1
    raw = replace(speaker, stats=type(speaker.stats)(0.0, 1.0)).speak(["hi"], n_iter=1)[0].sample.mel
    spoken = speaker.speak(["hi"], n_iter=1)[0].sample.mel
    np.testing.assert_allclose(spoken, raw * corpus.stats.std + corpus.stats.mean, rtol=1e-5)


def test_the_length_budget_is_the_training_corpus_own(voice: Path, tiny: Tiny) -> None:
    hp = tiny()
    expected = voice_info_of(hp, load_corpus(hp))
    limits = Speaker.load(voice, gate_threshold=0.9).limits
    assert limits.frames_per_symbol == expected.frames_per_symbol
    assert limits.gate_threshold == 0.9


def test_a_precision_that_this_machine_lacks_is_said_and_not_used(
    voice: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    exact = Speaker.load(voice).speak(["hi"])[0].sample.mel
    monkeypatch.setattr("speech.voice.why_unsupported", lambda decoder, precision: f"no {precision} here")
    for wanted, why in (("int8", "no int8 here"), ("auto", "no bf16 here")):
        spoken = Speaker.load(voice, precision=wanted).speak(["hi"])[0].sample.mel
        assert np.array_equal(spoken, exact)
        assert caplog.messages[-1] == f"the voice is spoken in fp32, not in {wanted}: {why}"


def test_auto_takes_the_fastest_precision_there_is(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder, plain = Decoder(tiny()), Decoder(tiny("decoder_backend=plain"))
    assert usable("int8", plain) == "fp32"
    monkeypatch.setattr(
        "speech.voice.why_unsupported", lambda decoder, precision: "missing" if precision == "int8" else None
    )
    assert [usable(wanted, decoder) for wanted in ("fp32", "bf16", "int8", "auto")] == ["fp32", "bf16", "fp32", "bf16"]
    monkeypatch.setattr("speech.voice.why_unsupported", lambda decoder, precision: None)
    assert usable("auto", decoder) == "int8"


def test_all_unreadable_texts_are_named_at_once() -> None:
    texts = ["fine", "100 \u4e2d", "a # b", "", "say {HH QQ1}"]
    with pytest.raises(DataError, match="4 of 5 texts can't be spoken") as caught:
        read_texts(texts, FrontEnd.create(cleaners=["basic_cleaners"]))
    for part in ("U+4E2D", "U+0023", "nothing to say", "QQ1"):
        assert part in str(caught.value)
    assert caught.value.exit_code == 3


def test_readable_texts_become_ids() -> None:
    first, second = read_texts(["hi", "{HH AY1}"], FrontEnd.create())
    assert len(first) == len(second) == 2 and first != second


def test_a_voice_reads_with_its_own_symbols_and_pronunciations(tiny: Tiny, tmp_path: Path) -> None:
    words = tmp_path / "words.tsv"
    words.write_text("unheard\tlow tone\n", encoding="utf-8")
    hp = tiny(f"symbol_set=corpus,pronunciations={words}")
    corpus = load_corpus(hp)
    hp = hp.model_copy(update={"n_symbols": len(corpus.front_end.table)})
    save_voice(hp, corpus, tmp_path)
    words.unlink()
    voice = Speaker.load(tmp_path)
    assert voice.front_end.table.symbols == corpus.front_end.table.symbols and len(voice.front_end.table) < 30
    (reference,) = voice.references_for(["unheard"])
    assert "".join(reference.symbols) == "low tone"
    with pytest.raises(DataError, match="no symbol"):
        voice.references_for(["quiz"])


def test_a_voice_of_version_0_1_reads_as_it_did(tiny: Tiny, tmp_path: Path) -> None:
    hp = tiny()
    saved = checkpoint_file.load(save_voice(hp, load_corpus(hp), tmp_path))
    old = VoiceInfo(**{**vars(saved.voice), "front_end": None})
    checkpoint_dir.save(Checkpoint(4, saved.model, old, None), tmp_path / "checkpoints")
    assert Speaker.load(tmp_path).front_end.symbol_ids("Dr. No") == FrontEnd.create().symbol_ids("Dr. No")


def test_a_run_without_checkpoints_is_nothing_to_recover(tmp_path: Path) -> None:
    with pytest.raises(NothingToRecover):
        Speaker.load(tmp_path)


@pytest.fixture(scope="module")
def nvidia_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights under NVIDIA's names, as its training saves them from several GPUs."""
    torch.manual_seed(0)
    weights = Tacotron2(create_hparams("normalize_mel=False")).state_dict()
    path = tmp_path_factory.mktemp("nvidia") / "checkpoint.pt"
    torch.save({"iteration": 5, "state_dict": {f"module.{k}": v for k, v in weights.items()}}, path)
    return path


def test_nvidias_weights_speak_raw_log_mels(nvidia_file: Path) -> None:
    speaker = Speaker.load(nvidia_file)
    assert (speaker.stats.mean, speaker.stats.std, speaker.step) == (0.0, 1.0, None)
    (spoken,) = speaker.speak(["a"], n_iter=1)
    assert spoken.sample.mel.shape[0] == 80 and spoken.sample.sampling_rate == 22050
    assert spoken.sample.wav is not None and np.isfinite(spoken.sample.wav).all() and spoken.verdict


def test_a_file_of_other_weights_says_what_does_not_fit(tmp_path: Path) -> None:
    torch.save({"state_dict": {"x": torch.ones(1)}}, tmp_path / "x.pt")
    with pytest.raises(UserError, match=r"does not fit this model in 85 places"):
        Speaker.load(tmp_path / "x.pt")
