"""The smallest corpus, the smallest model's settings on it, and batches of it."""

import random
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from corpus.batch import Batch, MelDataset
from corpus.filelists import Utterance
from corpus.mel_cache import Feature
from corpus.mel_statistics import MelStats

TINY = (
    "sampling_rate=8000,filter_length=256,win_length=256,hop_length=128,mel_fmax=4000,n_mel_channels=8,"
    "symbols_embedding_dim=8,encoder_embedding_dim=8,encoder_n_convolutions=1,encoder_kernel_size=3,attention_dim=4,"
    "attention_rnn_dim=8,decoder_rnn_dim=8,prenet_dim=4,attention_location_n_filters=2,"
    "attention_location_kernel_size=3,postnet_embedding_dim=4,postnet_n_convolutions=2,postnet_kernel_size=3,"
    "batch_size=2,num_workers=0,warmup_steps=0,validation_attention_analysis=False,validate_interval=100000,"
    "early_stopping=False,epochs=1000,mlflow_logging=False,telegram_monitoring=False,debug_reporting=False,"
    "save_attention_plots=False,tensorboard_logging=False"
)
TRAINING_TEXTS = ("a low tone", "one more", "and higher", "the fourth", "the last one")
VALIDATION_TEXTS = ("unheard", "not heard")


def write_corpus(folder: Path) -> Path:
    """Five training and two validation tones of 0.2 to 0.32 s at 8 kHz, with `train.txt` and `val.txt`."""
    (folder / "wavs").mkdir(parents=True)
    for name, texts, first in (("train", TRAINING_TEXTS, 0), ("val", VALIDATION_TEXTS, len(TRAINING_TEXTS))):
        lines = []
        for i, text in enumerate(texts, first):
            time_s = np.arange(int(8000 * (0.2 + 0.02 * i))) / 8000
            soundfile.write(folder / f"wavs/{i}.wav", 0.5 * np.sin(2 * np.pi * (200 + 60 * i) * time_s), 8000)
            lines.append(f"wavs/{i}.wav|{text}\n")
        (folder / f"{name}.txt").write_text("".join(lines), encoding="utf-8")
    return folder


def tiny_settings(corpus: Path, overrides: str = "") -> str:
    """The --hparams string of the smallest model on a corpus; overrides win over TINY."""
    data = f"training_files={corpus}/train.txt,validation_files={corpus}/val.txt,dataset_path={corpus}"
    pairs = filter(None, re.split(r",(?![^\[]*\])", f"{TINY},{data},{overrides}"))  # not at the commas of lists
    values = dict(pair.split("=", 1) for pair in pairs)  # the later one wins, which --hparams itself refuses
    return ",".join(f"{name}={value}" for name, value in values.items())


STATS = MelStats(mean=-5.0, std=2.0)
N_MELS = 3


def random_lengths(seed: int, n: int) -> list[tuple[int, int]]:
    """Speech-like: frames spread over a decade, text roughly proportional to it."""
    generator = random.Random(seed)
    frames = [int(60 * 10 ** generator.random()) for _ in range(n)]
    return [(max(1, int(mel * generator.uniform(0.12, 0.25))), mel) for mel in frames]


@pytest.fixture
def dataset(tmp_path: Path) -> MelDataset:
    """Thirty random mels on disk, as the cache keeps them."""
    generator = np.random.default_rng(0)
    features, texts = [], []
    for i, (n_tokens, n_frames) in enumerate(random_lengths(7, 30)):
        path = tmp_path / f"{i}.npy"
        np.save(path, generator.normal(-5, 2, (N_MELS, n_frames)).astype(np.float32))
        features.append(Feature(Utterance(f"u{i}", path, "x", None, path, i), path, str(i), n_frames))
        texts.append(range(1, n_tokens + 1))
    return MelDataset(features, texts, stats=STATS)


def assert_same_batch(left: Batch, right: Batch) -> None:
    assert left.utterance_ids == right.utterance_ids
    for name in ("text", "text_lengths", "mel", "mel_lengths", "gate"):
        assert torch.equal(getattr(left, name), getattr(right, name)), name
