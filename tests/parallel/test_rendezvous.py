"""Processes started by hand: whom they wait for, how long, and what ends the wait."""

import logging
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from torch import distributed as dist

from common.errors import UserError
from parallel import rendezvous
from parallel.rendezvous import Meeting
from support.paths import REPOSITORY

WAITING = """
import sys
from monitoring.logging_setup import configure_logging
from common.signals import end_on_signal
from parallel.rendezvous import Meeting
configure_logging()
with end_on_signal():
    Meeting(sys.argv[1], 0, 2).store()
"""


@pytest.fixture
def port() -> int:
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A program that is no training: it takes connections and says nothing."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield server


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "GIVE_UP_AFTER_S", 1.0)
    monkeypatch.setattr(rendezvous, "ANSWER_WITHIN_S", 1.0)
    monkeypatch.setattr(rendezvous, "LOOK_EVERY_S", 0.02)


def meet(url: str, size: int = 2) -> list[dist.Store]:
    """The store of each rank, all at once."""
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(lambda rank: Meeting(url, rank, size).store(), range(size)))


def test_all_ranks_meet_at_a_port_or_in_a_file(port: int, tmp_path: Path, impatient: None) -> None:
    for url, size in ((f"tcp://127.0.0.1:{port}", 3), (f"file://{tmp_path}/meeting", 2)):
        stores = meet(url, size)
        stores[0].set("number", "17")
        assert [store.get("number") for store in stores] == [b"17"] * size


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("address", ["tcp://127.0.0.1:{port}", "file://{folder}/meeting"])
def test_who_is_waited_for_is_said_at_once_again_and_not_for_ever(
    rank: int, address: str, port: int, tmp_path: Path, impatient: None, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(rendezvous, "REPEAT_EVERY_S", 0.5)
    url = address.format(port=port, folder=tmp_path)
    caplog.set_level(logging.INFO, logger="tacotron2")
    for _ in range(2):  # the second try is not refused for what the first one left
        with pytest.raises(UserError, match=rf"rank {rank} of 2 waits for rank {1 - rank} at dist_url={url}.*gave up"):
            Meeting(url, rank, 2).store()
    assert len(caplog.messages) >= 4 and "start each with its --rank" in caplog.messages[0]


def test_a_port_in_use_is_named_with_what_to_do(listener: socket.socket, impatient: None) -> None:
    port = listener.getsockname()[1]
    with pytest.raises(UserError, match=rf"port {port} of this machine is in use.*with --hparams dist_url="):
        Meeting(f"tcp://127.0.0.1:{port}", 0, 2).store()


def test_a_program_that_is_no_rank_0_is_not_waited_for(listener: socket.socket, impatient: None) -> None:
    with pytest.raises(UserError, match="what listens at that port is no rank 0"):
        Meeting(f"tcp://127.0.0.1:{listener.getsockname()[1]}", 1, 2).store()


def test_a_rank_started_twice_is_refused(port: int, tmp_path: Path, impatient: None) -> None:
    for url, reason in (
        (f"tcp://127.0.0.1:{port}", "--rank 1 is there already"),
        (f"file://{tmp_path}/meeting", "the file is in use by another run"),
    ):
        stores = meet(url)
        with pytest.raises(UserError, match=reason):
            Meeting(url, 1, 2).store()
        assert len(stores) == 2


def test_what_an_incomplete_run_left_in_a_file_lets_nobody_begin(tmp_path: Path, impatient: None) -> None:
    url = f"file://{tmp_path}/meeting"
    left = dist.PrefixStore("2 processes", dist.FileStore(str(tmp_path / "meeting"), 2))
    left.add("rank 0", 1)  # who was killed then
    with pytest.raises(UserError, match="waits for rank 0.*gave up"):
        Meeting(url, 1, 2).store()
    with pytest.raises(UserError, match="left over from one that was killed; if none runs, delete it"):
        Meeting(url, 0, 2).store()


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("tcp://localhost", "must be tcp://HOST:PORT"),
        ("tcp://localhost:99999", "must be tcp://HOST:PORT"),
        ("file:///no/such/folder/meeting", "there is no folder /no/such/folder"),
    ],
)
def test_an_address_that_leads_nowhere_is_refused(url: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        Meeting(url, 0, 2).store()


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.spec), signal.SIGTERM])
@pytest.mark.parametrize("address", ["tcp://127.0.0.1:{port}", "file://{folder}/meeting"])
def test_a_signal_ends_the_wait_at_once(number: signal.Signals, address: str, port: int, tmp_path: Path) -> None:
    command = [sys.executable, "-c", WAITING, address.format(port=port, folder=tmp_path)]
    with subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "waits for rank 1" in process.stderr.readline()
        process.send_signal(number)
        began = time.monotonic()
        assert process.wait(20) == 128 + number and time.monotonic() - began < 5
