"""What tests share: a cache of their own, and a corpus and a model so small that a training step takes milliseconds."""

import re
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile

from hparams import HParams, create_hparams

TINY = (
    "sampling_rate=8000,filter_length=256,win_length=256,hop_length=128,mel_fmax=4000,n_mel_channels=8,"
    "symbols_embedding_dim=8,encoder_embedding_dim=8,encoder_n_convolutions=1,encoder_kernel_size=3,attention_dim=4,"
    "attention_rnn_dim=8,decoder_rnn_dim=8,prenet_dim=4,attention_location_n_filters=2,"
    "attention_location_kernel_size=3,postnet_embedding_dim=4,postnet_n_convolutions=2,postnet_kernel_size=3,"
    "batch_size=2,num_workers=0,warmup_steps=0,validation_attention_analysis=False,validate_interval=100000,"
    "early_stopping=False,epochs=1000,mlflow_logging=False,telegram_monitoring=False,debug_reporting=False"
)
TRAINING_TEXTS = ("a low tone", "one more", "and higher", "the fourth", "the last one")
VALIDATION_TEXTS = ("unheard", "not heard")


@pytest.fixture(autouse=True)
def isolated_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or writes the user's cache, inherits the launch of a run, or reaches the user's trackers."""
    trackers = ("TELEGRAM_BOT_TOKEN", "TELEGRAM_CHAT_ID", "TELEGRAM_API_BASE", "MLFLOW_TRACKING_URI")
    for name in ("TACOTRON2_LAUNCH_ID", "TORCHELASTIC_RUN_ID", *trackers):
        monkeypatch.setenv(name, "")  # so that what a test's code sets is undone
        monkeypatch.delenv(name)
    monkeypatch.setenv("TACOTRON2_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Tiny tensors gain nothing from more threads, and processes beside this one lose by them."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@contextmanager
def memory_room(n_bytes: int) -> Iterator[None]:
    """Memory really ends: this process may map so much more than now, until the block ends."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@contextmanager
def disk_that_takes(n_bytes: int) -> Iterator[None]:
    """No file may grow beyond that: what a full disk is to a writer, also for root."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


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


@pytest.fixture(scope="session")
def corpus_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus") / "data")


def tiny_settings(corpus: Path, overrides: str = "") -> str:
    """The --hparams string of the smallest model on a corpus; overrides win over TINY."""
    data = f"training_files={corpus}/train.txt,validation_files={corpus}/val.txt,dataset_path={corpus}"
    pairs = filter(None, re.split(r",(?![^\[]*\])", f"{TINY},{data},{overrides}"))  # not at the commas of lists
    values = dict(pair.split("=", 1) for pair in pairs)  # the later one wins, which --hparams itself refuses
    return ",".join(f"{name}={value}" for name, value in values.items())


@pytest.fixture(scope="session")
def tiny(corpus_folder: Path) -> Callable[..., HParams]:
    """`tiny("batch_size=3")`: hyperparameters of the smallest model on the shared corpus."""

    def make(overrides: str = "") -> HParams:
        return create_hparams(tiny_settings(corpus_folder, overrides))

    return make
