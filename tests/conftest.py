"""What tests share: a cache of their own, and a corpus and a model so small that a training step takes milliseconds."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from common.log import LOG
from common.processors import n_processors
from hparams import HParams, create_hparams
from support import warm_commands
from support.corpora import tiny_settings, write_corpus


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """`-n auto`: one more than processors, as many tests wait for processes. --maxprocesses limits it."""
    return n_processors() + 1


def pytest_configure() -> None:
    """Several tests run at once, so the threads of each command wait asleep. That changes no bit."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    warm_commands.OURS.update(os.environ)


@pytest.fixture(autouse=True)
def isolated_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or writes the user's cache, inherits the launch of a run, or reaches the user's trackers."""
    trackers = ("TELEGRAM_BOT_TOKEN", "TELEGRAM_CHAT_ID", "TELEGRAM_API_BASE", "MLFLOW_TRACKING_URI")
    for name in ("TACOTRON2_LAUNCH_ID", "TORCHELASTIC_RUN_ID", *trackers):
        monkeypatch.setenv(name, "")  # so that what a test's code sets is undone
        monkeypatch.delenv(name)
    monkeypatch.setenv("TACOTRON2_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def log_as_before() -> Iterator[None]:
    """A command that runs in a test's process writes to that test's stderr, which is closed when the next one logs."""
    handlers, propagate, level = list(LOG.handlers), LOG.propagate, LOG.level
    yield
    for handler in LOG.handlers:
        if handler not in handlers:
            handler.close()
    LOG.handlers[:] = handlers
    LOG.propagate = propagate
    LOG.setLevel(level)


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Tiny tensors gain nothing from more threads, and processes beside this one lose by them."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def corpus_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus") / "data")


@pytest.fixture(scope="session")
def tiny(corpus_folder: Path) -> Callable[..., HParams]:
    """`tiny("batch_size=3")`: hyperparameters of the smallest model on the shared corpus."""

    def make(overrides: str = "") -> HParams:
        return create_hparams(tiny_settings(corpus_folder, overrides))

    return make
