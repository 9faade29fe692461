"""Validation's losses and samples, and that it depends on nothing but the model and the data."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from audio.mel import mel_spectrogram
from audio.recordings import read_audio
from corpus.loader import make_loader
from corpus.mel_statistics import MelStats, to_log_mel_units
from data_utils import Corpus, load_corpus, plan_batches
from hparams import HParams
from speech.decoding import ignored_symbols, log_mel
from speech.vocoders.vocoder import load_vocoder
from support.runs import CPU, model_of, validated
from support.vocoders import SMALL_MEL, write_golden
from training.validation import teacher_forced_losses

Tiny = Callable[..., HParams]


@pytest.fixture
def speaking(tiny: Tiny) -> HParams:
    return tiny("validation_attention_analysis=True")


def test_validating_twice_gives_the_same_numbers(speaking: HParams) -> None:
    model, corpus = model_of(speaking), load_corpus(speaking)
    first = validated(speaking, model, corpus)
    torch.manual_seed(77)
    second = validated(speaking, model, corpus)
    assert (first.losses, first.free_running, first.score) == (second.losses, second.free_running, second.score)
    for a, b in zip(first.samples, second.samples, strict=True):
        assert np.array_equal(a.mel, b.mel) and a.stop_reason == b.stop_reason


def test_validation_changes_neither_weights_nor_statistics_nor_randomness_nor_mode(speaking: HParams) -> None:
    model, corpus = model_of(speaking), load_corpus(speaking)
    before, random_state = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    validated(speaking, model, corpus)
    assert model.training and torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_the_loss_does_not_depend_on_how_utterances_are_batched(tiny: Tiny) -> None:
    losses = []
    for batch_size in (1, 2):
        # without dropout, and with one symbol seen at a time: encoder and postnet look into the padding otherwise
        hp = tiny(f"batch_size={batch_size},dropout_rate=0,encoder_kernel_size=1,postnet_kernel_size=1")
        corpus = load_corpus(hp)
        plan = plan_batches(corpus.validation, hp, is_validation=True)
        batches = make_loader(corpus.validation, plan, epoch=0, r=1)
        losses.append(teacher_forced_losses(model_of(hp).eval(), batches, hp, corpus, CPU))
    assert losses[0].keys() == losses[1].keys()
    for name in losses[0].keys() - {"nvidia_unmasked"}:  # which is a mean over the padding too
        assert losses[0][name] == pytest.approx(losses[1][name], rel=1e-4), name  # float32 sums in another order


def test_the_score_is_the_loss_without_free_running(tiny: Tiny) -> None:
    hp = tiny("validation_attention_analysis=False")
    result = validated(hp, model_of(hp), load_corpus(hp))
    assert result.score == result.losses["mel_post"] and result.samples == [] and result.free_running == {}


def test_samples_hold_what_was_said_beside_the_recording_in_log_mel(speaking: HParams) -> None:
    corpus = load_corpus(speaking)
    result = validated(speaking, model_of(speaking), corpus)
    assert [s.text for s in result.samples] == ["unheard", "not heard"]
    for i, sample in enumerate(result.samples):
        path = corpus.validation.features[i].utterance.audio_path
        recorded = mel_spectrogram(torch.from_numpy(read_audio(path, speaking)), speaking).numpy()
        assert sample.target_mel is not None
        np.testing.assert_allclose(sample.target_mel, recorded, atol=1e-5)
        assert sample.alignment.shape == (sample.mel.shape[1], len(sample.symbols))
        assert sample.wav is not None and np.isfinite(sample.wav).all()


@pytest.mark.filterwarnings("ignore:Empty filters")  # 80 bands of a window of 64
def test_samples_are_made_by_the_vocoder_of_the_settings(tiny: Tiny, tmp_path: Path) -> None:
    mel = "filter_length=64,hop_length=8,win_length=64,n_mel_channels=80,max_decoder_steps=40"
    generator = write_golden(tmp_path / "generator")
    hp = tiny(
        f"validation_attention_analysis=True,use_audio_quality_enhancement=False,sample_vocoder={generator},{mel}"
    )
    (sample, _) = validated(hp, model_of(hp), load_corpus(hp)).samples
    expected = load_vocoder(generator, SMALL_MEL)(torch.from_numpy(sample.mel)).numpy()
    assert sample.wav is not None and np.array_equal(sample.wav, expected)


def test_log_mel_undoes_the_standardisation() -> None:
    mel, stats = torch.randn(4, 5), MelStats(mean=-5.0, std=2.0)
    np.testing.assert_allclose((log_mel(mel, stats) + 5.0) / 2.0, mel.numpy(), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "factor"), [("mel", 4.0), ("mel_post", 4.0), ("gate", 1.0), ("guided_attention", 1.0)]
)
def test_only_mel_losses_are_rescaled(name: str, factor: float) -> None:
    assert to_log_mel_units(name, 3.0, MelStats(-5.0, 2.0)) == 3.0 * factor


def with_std(corpus: Corpus, std: float) -> Corpus:
    return replace(corpus, stats=replace(corpus.stats, std=std))


def test_losses_in_log_mel_units_fall_with_the_deviation(tiny: Tiny) -> None:
    hp = tiny()
    corpus = load_corpus(hp)
    plan = plan_batches(corpus.validation, hp, is_validation=True)
    batches = list(make_loader(corpus.validation, plan, epoch=0, r=1))
    narrow = teacher_forced_losses(model_of(hp).eval(), batches, hp, with_std(corpus, 1.0), CPU)
    torch.manual_seed(hp.seed)
    wide = teacher_forced_losses(model_of(hp).eval(), batches, hp, with_std(corpus, 3.0), CPU)
    assert wide["mel"] == pytest.approx(9.0 * narrow["mel"]) and wide["gate"] == pytest.approx(narrow["gate"])


def test_spaces_and_punctuation_need_no_attention() -> None:
    assert ignored_symbols(["a", " ", ",", "b", "."]).tolist() == [False, True, True, False, True]
