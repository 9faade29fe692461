"""How processes, or launchers on several machines, find each other. No wait is silent, endless, or deaf to signals.

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
from typing import Self
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
    """One rank's way to the others at a tcp:// or file:// address, and the words for both."""

    url: str
    rank: int
    size: int
    who: str = "rank"
    setting: str = "dist_url="
    numbered_by: str = "--rank"
    counted_by: str = "--n_gpus"

    @classmethod
    def of_machines(cls, endpoint: str, node_rank: int, nnodes: int) -> Self:
        """Of launchers at `--rdzv_endpoint HOST:PORT`."""
        return cls(f"tcp://{endpoint}", node_rank, nnodes, "machine", "--rdzv_endpoint ", "--node_rank", "--nnodes")

    @property
    def _where(self) -> str:
        return self.setting + (self.url if self.who == "rank" else self.url.removeprefix("tcp://"))

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
                    f"{self._where}: {self.who} 0 has ended ({first_line(error)}); see what it says"
                ) from error

        self._wait(missing)

    def _wait(self, missing: Callable[[], list[int]]) -> None:
        """Until no rank is `missing`: says for whom at once and every half minute, and gives up with a UserError."""
        began, said_at = time.monotonic(), -REPEAT_EVERY_S
        while ranks := missing():
            waited_s = time.monotonic() - began
            whom = f"{self.who}{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"
            line = (
                f"{self.who} {self.rank} of {self.size} waits for {whom} at {self._where}: start each with its "
                f"{self.numbered_by}, with {self.counted_by} {self.size} and the same {self.setting.strip('= ')}"
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
                f"{self._where}: the file is in use by another run, or left over from one that was killed; "
                "if none runs, delete it, else name another file"
            )
        return f"{self._where}: {self.numbered_by} {self.rank} is there already; start each once"

    # -- file:// ----------------------------------------------------------------------------------------------

    def _file_store(self) -> dist.Store:
        path = Path(urlparse(self.url).path)
        if not path.parent.is_dir():
            raise UserError(f"{self._where}: there is no folder {path.parent}; all ranks must share it")
        try:
            with path.open("ab"):
                pass
        except OSError as error:
            raise UserError(f"{self._where}: can't write there ({error.strerror}); name another file") from error
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
            raise UserError(f"{self._where}: must be tcp://HOST:PORT, with the host of {self.who} 0")
        return host, port

    def _serve(self, host: str, port: int) -> dist.Store:
        try:
            if not _is_listening(host, port):
                # multi-tenant: the launcher's agent opens the same port of this process again
                return dist.TCPStore(
                    host, port, None, is_master=True, timeout=STORE_TIMEOUT, wait_for_workers=False, multi_tenant=True
                )
            why = "EADDRINUSE"
        except dist.DistNetworkError as error:
            why = first_line(error)
        if "EADDRINUSE" in why:
            why = f"port {port} of this machine is in use, perhaps by another run"
        raise UserError(f"{self._where}: {why}; {self._other_port()}")

    def _other_port(self) -> str:
        other = "--hparams dist_url=tcp://HOST:PORT" if self.who == "rank" else "--rdzv_endpoint HOST:PORT"
        return f"give each {self.who} another one with {other}"

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
            raise UserError(f"{self._where}: what listens at that port is no {self.who} 0; {self._other_port()}")
        return found[0]


def _is_listening(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=1.0):
            return True
    except OSError:  # an unknown host as well: it may become known
        return False
