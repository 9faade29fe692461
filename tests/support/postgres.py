"""A real PostgreSQL server on loopback, in a temporary directory, as a user that is not root."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

SETTINGS = ("listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off", "max_connections=60")


@cache
def missing() -> str:
    """What a test that needs the server lacks here; "" for nothing."""
    if binaries() is None:
        return "needs PostgreSQL's initdb and postgres (Debian package postgresql)"
    try:
        import psycopg  # noqa: F401
    except ImportError:
        return "needs psycopg (requirements-postgresql.txt)"
    return ""


def binaries() -> Path | None:
    """The folder of initdb and postgres; Debian keeps it off the PATH."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "initdb").exists()), None)


class Server:
    """An empty database that can go and come back."""

    def __init__(self, folder: Path, user: str | None) -> None:
        self._folder, self._user = folder, user
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"postgresql+psycopg://tuner:planted-secret@127.0.0.1:{self.port}/postgres"
        options = ("-U", "tuner", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C")
        subprocess.run(
            [self._program("initdb"), "-D", folder / "data", *options],
            user=user, cwd=folder, check=True, capture_output=True,
        )  # fmt: skip
        self.start()

    def _program(self, name: str) -> Path:
        folder = binaries()
        assert folder is not None
        return folder / name

    def start(self) -> None:
        settings = [word for setting in SETTINGS for word in ("-c", setting)]
        command = [self._program("postgres"), "-D", self._folder / "data", "-p", str(self.port), *settings]
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(command, user=self._user, cwd=self._folder, stderr=log)
        while not _answers(self.port):
            assert self._process.poll() is None, (self._folder / "server.log").read_text()
            time.sleep(0.05)

    def stop(self) -> None:
        self._process.send_signal(signal.SIGINT)  # "fast": whoever is connected is sent away
        self._process.wait(30)


@contextmanager
def server() -> Iterator[str]:
    """The URL of an empty database."""
    with restartable() as running:
        yield running.url


@contextmanager
def restartable() -> Iterator[Server]:
    folder = Path(tempfile.mkdtemp(prefix="postgresql-"))
    user = None if os.geteuid() else _other_user()
    if user is not None:
        shutil.chown(folder, user)
    try:
        running = Server(folder, user)
        try:
            yield running
        finally:
            running.stop()
    finally:
        shutil.rmtree(folder)


def _other_user() -> str:
    """PostgreSQL refuses to run as root."""
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _answers(port: int) -> bool:
    import psycopg

    try:
        psycopg.connect(host="127.0.0.1", port=port, user="tuner", dbname="postgres", connect_timeout=5).close()
        return True
    except psycopg.OperationalError:
        return False
