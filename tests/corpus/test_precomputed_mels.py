"""load_mel_from_disk: mels made elsewhere train as their recordings would, and bad ones are named with their line."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from common.errors import DataError
from corpus.mel_cache import read_mel
from data_utils import load_corpus
from hparams import HParams
from support.corpora import TRAINING_TEXTS, VALIDATION_TEXTS
from support.runs import trained

Tiny = Callable[..., HParams]


@pytest.fixture
def mels(tiny: Tiny, tmp_path: Path) -> Path:
    """The mels of the shared recordings as files, with lists in both formats."""
    corpus, folder = load_corpus(tiny()), tmp_path / "melfiles"
    (folder / "mels").mkdir(parents=True)
    for feature in (*corpus.train.features, *corpus.validation.features):
        np.save(folder / f"mels/{feature.utterance.utterance_id}.npy", read_mel(feature.mel_path))
    train = "".join(f"mels/{i}.npy|{text}\n" for i, text in enumerate(TRAINING_TEXTS))
    val = "".join(f"{i}|{text}\n" for i, text in enumerate(VALIDATION_TEXTS, len(TRAINING_TEXTS)))
    (folder / "train.txt").write_text(train, encoding="utf-8")
    (folder / "val.txt").write_text(val, encoding="utf-8")
    return folder


def settings(tiny: Tiny, folder: Path, more: str = "") -> HParams:
    lists = f"training_files={folder}/train.txt,validation_files={folder}/val.txt,dataset_path={folder}"
    return tiny(f"load_mel_from_disk=True,{lists},{more}")


def test_mels_from_disk_train_to_the_same_bits_as_their_recordings(tiny: Tiny, mels: Path, tmp_path: Path) -> None:
    from_audio = trained(tiny(), tmp_path / "audio", 3)
    from_disk = trained(settings(tiny, mels), tmp_path / "disk", 3)
    assert from_disk.seen == from_audio.seen and from_disk.losses == from_audio.losses


@pytest.mark.parametrize("dtype", ["float16", "float64", ">f4"])
def test_other_float_types_come_out_as_float32(tiny: Tiny, mels: Path, dtype: str) -> None:
    path = mels / "mels/0.npy"
    mel = np.load(path)
    np.save(path, mel.astype(dtype))
    item = load_corpus(settings(tiny, mels)).train[0]
    np.testing.assert_allclose(item.mel.numpy(), mel, rtol=2e-3)
    assert str(item.mel.dtype) == "torch.float32"


BAD = {
    "of two shapes": (lambda m: m[:5], r"0\.npy has shape \(5, \d+\), but n_mel_channels=8 asks for \(8, frames\)"),
    "transposed": (lambda m: m.T, r"0\.npy has shape \(\d+, 8\).*transpose it"),
    "empty": (lambda m: m[:, :0], r"0\.npy has shape \(8, 0\)"),
    "integers": (lambda m: m.astype(int), "0.npy holds int64, not floats"),
    "NaN": (lambda m: np.where(m == m[0, 0], np.nan, m), r"0\.npy holds \d+ values that are NaN or infinite"),
    "objects": (lambda m: np.array([{}]), "0.npy is no .npy array"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_mel_that_cannot_be_used_is_named_with_its_line(tiny: Tiny, mels: Path, kind: str) -> None:
    change, message = BAD[kind]
    path = mels / "mels/0.npy"
    np.save(path, change(np.load(path)), allow_pickle=True)
    with pytest.raises(DataError, match=rf"train\.txt:1: .*{message}"):
        load_corpus(settings(tiny, mels))
    left = load_corpus(settings(tiny, mels), skip_bad=True)
    assert len(left.train) == len(TRAINING_TEXTS) - 1 and left.problems[0].kind == "unusable mel"


def test_a_file_that_is_no_array_is_named_with_its_line(tiny: Tiny, mels: Path) -> None:
    (mels / "mels/3.npy").write_bytes(b"")
    (mels / "mels/1.npy").write_bytes(b"no array at all")
    with pytest.raises(DataError, match=r"2 unusable mel.*\n.*train\.txt:2: .*no \.npy.*\n.*train\.txt:4: "):
        load_corpus(settings(tiny, mels))


def test_audio_in_a_list_of_mels_and_mels_in_a_list_of_audio_are_refused(tiny: Tiny, mels: Path) -> None:
    (mels / "val.txt").write_text("wavs/5.wav|unheard\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"val\.txt:1: wavs/5\.wav where \.npy belongs.*load_mel_from_disk=False"):
        load_corpus(settings(tiny, mels))
    with pytest.raises(DataError, match=r"train\.txt:1: mels/0\.npy where \.wav, .*load_mel_from_disk=True"):
        load_corpus(settings(tiny, mels, "load_mel_from_disk=False"))


def test_mels_that_are_no_natural_logs_with_our_floor_are_warned_about(
    tiny: Tiny, mels: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = mels / "mels/2.npy"
    with caplog.at_level(logging.WARNING):
        load_corpus(settings(tiny, mels))
        assert "they look like" not in caplog.text
        np.save(path, 8.7 * np.load(path))  # decibels
        load_corpus(settings(tiny, mels))
    assert "train.txt:3: mels lie between" in caplog.text
    assert "they look like decibels" in caplog.text
