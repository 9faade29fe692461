"""Dropped teacher frames: which ones, what stands in their place, and where the mean frame comes from."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from common.errors import UserError
from corpus.mean_frame import global_mean, mean_frame, standardised_mean_frame
from corpus.mel_cache import read_mel
from data_utils import Corpus, load_corpus
from hparams import HParams
from training.frame_dropping import drop_frames

Tiny = Callable[..., HParams]


def test_each_valid_frame_is_dropped_whole_at_the_given_rate() -> None:
    torch.manual_seed(0)
    mel, lengths, mean = torch.randn(4, 5, 3000), torch.tensor([3000, 2000, 1, 3000]), torch.arange(5.0)
    shown = drop_frames(mel, lengths, mean, 0.3)
    is_mean = (shown == mean[:, None]).all(1)  # [B, T_mel]
    assert torch.equal(torch.where(is_mean.unsqueeze(1), mel, shown), mel)
    for b, length in enumerate(lengths.tolist()):
        assert not is_mean[b, length:].any()
    valid = torch.cat([is_mean[b, :n] for b, n in enumerate(lengths.tolist())])
    assert valid.float().mean().item() == pytest.approx(0.3, abs=0.02)
    neighbours = (is_mean[0, 1:] & is_mean[0, :-1]).float().mean().item()
    assert neighbours == pytest.approx(0.09, abs=0.03)  # independent of each other
    assert not torch.equal(is_mean[0], is_mean[3])


def test_the_mean_frame_counts_every_frame_once() -> None:
    mels = [np.random.default_rng(i).normal(size=(3, n)).astype(np.float32) for i, n in enumerate((2, 7, 1))]
    expected = [sum(float(mel[i, t]) for mel in mels for t in range(mel.shape[1])) / 10 for i in range(3)]
    np.testing.assert_allclose(mean_frame(mels), expected, rtol=1e-6)
    assert mean_frame(mels).dtype == np.float32


def by_hand(corpus: Corpus) -> np.ndarray:
    return np.concatenate([read_mel(f.mel_path) for f in corpus.train.features], axis=1).mean(axis=1)


def test_it_is_of_the_training_set_and_standardised_as_the_model_sees_mels(tiny: Tiny, tmp_path: Path) -> None:
    hp = tiny(f"global_mean_npy={tmp_path}/mean.npy")
    corpus = load_corpus(hp)
    frame = standardised_mean_frame(corpus.train.features, hp, corpus.stats)
    expected = (by_hand(corpus) - corpus.stats.mean) / corpus.stats.std
    np.testing.assert_allclose(frame.numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(np.load(tmp_path / "mean.npy"), by_hand(corpus), atol=1e-5)


def test_a_fitting_file_is_read_and_a_stale_or_damaged_one_made_again(tiny: Tiny, tmp_path: Path) -> None:
    path = tmp_path / "mean.npy"
    hp = tiny(f"global_mean_npy={path}")
    features = load_corpus(hp).train.features
    first = global_mean(features, hp)
    written = path.stat().st_mtime_ns
    assert np.array_equal(global_mean(features, hp), first) and path.stat().st_mtime_ns == written
    fewer = global_mean(features[:2], hp)  # other recordings
    assert not np.array_equal(fewer, first) and np.array_equal(np.load(path), fewer)
    other = tiny(f"global_mean_npy={path},mel_fmin=200")  # other audio parameters
    other_features = load_corpus(other).train.features
    shifted = global_mean(other_features, other)
    np.testing.assert_allclose(shifted, mean_frame(read_mel(f.mel_path) for f in other_features))
    assert not np.array_equal(shifted, first)
    assert np.array_equal(global_mean(features, hp), first)
    np.save(path, first + 1)  # somebody else's mean under the old note
    assert np.array_equal(global_mean(features, hp), first)
    path.write_bytes(b"no array")
    assert np.array_equal(global_mean(features, hp), first)


def test_a_relative_name_lies_in_the_cache_apart_for_each_corpus(tiny: Tiny, isolated_cache: Path) -> None:
    hp = tiny("global_mean_npy=mean.npy")
    features = load_corpus(hp).train.features
    global_mean(features, hp)
    global_mean(features[:3], hp)
    assert len(list((isolated_cache / "features").rglob("mean.npy"))) == 2


def test_a_place_that_takes_no_file_is_named(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    hp = tiny(f"global_mean_npy={tmp_path}/file/mean.npy")
    with pytest.raises(UserError, match="cannot write global_mean_npy=.*mean.npy"):
        global_mean(load_corpus(hp).train.features, hp)
