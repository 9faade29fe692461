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


@contextmanager
def server() -> Iterator[str]:
    """The URL of an empty database."""
    folder = Path(tempfile.mkdtemp(prefix="postgresql-"))
    user = None if os.geteuid() else _other_user()
    if user is not None:
        shutil.chown(folder, user)
    try:
        with _running(folder, user) as port:
            yield f"postgresql+psycopg://tuner:planted-secret@127.0.0.1:{port}/postgres"
    finally:
        shutil.rmtree(folder)


def _other_user() -> str:
    """PostgreSQL refuses to run as root."""
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


@contextmanager
def _running(folder: Path, user: str | None) -> Iterator[int]:
    programs, data = binaries(), folder / "data"
    assert programs is not None
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    make = [programs / "initdb", "-D", data, "-U", "tuner", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C"]
    subprocess.run(make, user=user, cwd=folder, check=True, capture_output=True)
    settings = [word for setting in SETTINGS for word in ("-c", setting)]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [programs / "postgres", "-D", data, "-p", str(port), *settings], user=user, cwd=folder, stderr=log
        )
    try:
        while not _answers(port):
            assert process.poll() is None, (folder / "server.log").read_text()
            time.sleep(0.05)
        yield port
    finally:
        process.send_signal(signal.SIGINT)  # "fast": whoever is connected is sent away
        process.wait(30)


def _answers(port: int) -> bool:
    import psycopg

    try:
        psycopg.connect(host="127.0.0.1", port=port, user="tuner", dbname="postgres", connect_timeout=5).close()
        return True
    except psycopg.OperationalError:
        return False
