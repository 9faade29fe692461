"""How processes that were started by hand find each other at dist_url. No wait is silent, endless, or deaf to signals.

torch's own rendezvous blocks in C++ for half an hour, where no handler of Python's runs. Here it is asked for nothing
before all ranks are there, which is found out in short looks.
"""

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlparse

from torch import distributed as dist

from common.durations import duration
from common.errors import UserError, first_line
from common.log import LOG

GIVE_UP_AFTER_S = 600.0
REPEAT_EVERY_S = 30.0
LOOK_EVERY_S = 0.2
ANSWER_WITHIN_S = 30.0  # of what listens at dist_url, when it has been reached
STORE_TIMEOUT = timedelta(minutes=30)  # of the store in use, when all have met; torch's own


@dataclass(frozen=True)
class Meeting:
    """One rank's way to the others at a tcp:// or file:// address."""

    url: str
    rank: int
    size: int

    def store(self) -> dist.Store:
        """The store that all ranks share, once all are there. UserError where they can't meet."""
        shared = self._file_store() if self.url.startswith("file:") else self._tcp_store()
        store = dist.PrefixStore(f"{self.size} processes", shared)
        names = [f"rank {rank}" for rank in range(self.size)]
        if store.add(names[self.rank], 1) > 1:
            raise UserError(self._taken())
        try:
            # twice, as a file may hold the ranks of an earlier run that never was complete: nobody there was ready
            self._wait_for_keys(store, names)
            store.add(f"{names[self.rank]} is ready", 1)
            self._wait_for_keys(store, [f"{name} is ready" for name in names])
        except UserError:
            with suppress(RuntimeError):
                store.delete_key(names[self.rank])  # so that the next try finds the file as new
            raise
        store.set_timeout(STORE_TIMEOUT)
        return store

    def _wait_for_keys(self, store: dist.Store, keys: list[str]) -> None:
        def missing() -> list[int]:
            try:
                return [rank for rank, key in enumerate(keys) if not store.check([key])]
            except RuntimeError as error:  # the store is gone, and rank 0 with it
                raise UserError(
                    f"dist_url={self.url}: rank 0 has ended ({first_line(error)}); see what it says"
                ) from error

        self._wait(missing)

    def _wait(self, missing: Callable[[], list[int]]) -> None:
        """Until no rank is `missing`: says for whom at once and every half minute, and gives up with a UserError."""
        began, said_at = time.monotonic(), -REPEAT_EVERY_S
        while ranks := missing():
            waited_s = time.monotonic() - began
            whom = f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"
            line = (
                f"rank {self.rank} of {self.size} waits for {whom} at dist_url={self.url}: start every rank with its "
                f"--rank, with --n_gpus {self.size} and the same dist_url"
            )
            if waited_s > GIVE_UP_AFTER_S:
                raise UserError(f"{line}; gave up after {duration(waited_s)}")
            if waited_s - said_at >= REPEAT_EVERY_S:
                said_at = waited_s
                LOG.info("%s; gives up in %s", line, duration(GIVE_UP_AFTER_S - waited_s))
            time.sleep(LOOK_EVERY_S)

    def _taken(self) -> str:
        if self.url.startswith("file:"):
            return (
                f"dist_url={self.url}: the file is in use by another run, or left over from one that was killed; "
                "if none runs, delete it, else name another file"
            )
        return f"dist_url={self.url}: another process has --rank {self.rank} already; each rank is started once"

    # -- file:// ----------------------------------------------------------------------------------------------

    def _file_store(self) -> dist.Store:
        path = Path(urlparse(self.url).path)
        if not path.parent.is_dir():
            raise UserError(f"dist_url={self.url}: there is no folder {path.parent}; all ranks must share it")
        try:
            with path.open("ab"):
                pass
        except OSError as error:
            raise UserError(f"dist_url={self.url}: can't write there ({error.strerror}); name another file") from error
        return dist.FileStore(str(path), self.size)

    # -- tcp:// -----------------------------------------------------------------------------------------------

    def _tcp_store(self) -> dist.Store:
        host, port = self._address()
        if self.rank == 0:
            return self._serve(host, port)
        self._wait(lambda: [] if _is_listening(host, port) else [0])
        return self._join(host, port)

    def _address(self) -> tuple[str, int]:
        try:
            parts = urlparse(self.url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        if not host or not port:
            raise UserError(f"dist_url={self.url}: must be tcp://HOST:PORT, with the host of rank 0")
        return host, port

    def _serve(self, host: str, port: int) -> dist.Store:
        try:
            if not _is_listening(host, port):
                return dist.TCPStore(host, port, None, is_master=True, timeout=STORE_TIMEOUT, wait_for_workers=False)
            why = "EADDRINUSE"
        except dist.DistNetworkError as error:
            why = first_line(error)
        if "EADDRINUSE" in why:
            why = f"port {port} of this machine is in use, perhaps by another run"
        raise UserError(f"dist_url={self.url}: {why}; give all ranks --hparams dist_url=tcp://HOST:ANOTHER_PORT")

    def _join(self, host: str, port: int) -> dist.Store:
        """In a thread, as torch waits without end for an answer from a program that is no store."""
        found: list[dist.Store] = []

        def join() -> None:
            with suppress(RuntimeError):
                store = dist.TCPStore(host, port, None, is_master=False, timeout=STORE_TIMEOUT, wait_for_workers=False)
                found.append(store)

        thread = threading.Thread(target=join, name="rendezvous", daemon=True)
        thread.start()
        deadline = time.monotonic() + ANSWER_WITHIN_S
        while thread.is_alive() and time.monotonic() < deadline:
            time.sleep(LOOK_EVERY_S)
        if not found:
            raise UserError(
                f"dist_url={self.url}: what listens there is no rank 0; give all ranks --hparams "
                "dist_url=tcp://HOST:ANOTHER_PORT"
            )
        return found[0]


def _is_listening(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=1.0):
            return True
    except OSError:  # an unknown host as well: it may become known
        return False
