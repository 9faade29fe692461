"""Commands run by a Python that is warm already, see warm_python.py; as subprocess.run does it."""

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

READ_AT_IMPORT = ("OMP_", "MKL_", "TORCH", "MPL", "PYTHON", "CUDA", "LD_", "PATH", "HOME")  # by the libraries
SET_BY_TORCH = {"TORCHINDUCTOR_CACHE_DIR"}  # to its default, in a process that compiles
STARTING_S = 120.0
OURS = dict(os.environ)


def run_warm(
    arguments: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout_s: float
) -> subprocess.CompletedProcess[str]:
    """subprocess.run of this interpreter with these arguments, its output captured as text."""
    if not _suits(env):
        command = [sys.executable, *arguments]
        return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=timeout_s)
    request = {"arguments": list(arguments), "cwd": str(cwd), "environment": dict(env)}
    with (
        socket.socket(socket.AF_UNIX) as connection,
        open(os.devnull) as nothing,
        tempfile.TemporaryFile("w+", encoding="utf-8") as out,
        tempfile.TemporaryFile("w+", encoding="utf-8") as err,
    ):
        connection.connect(warm_python())
        socket.send_fds(connection, [json.dumps(request).encode()], [nothing.fileno(), out.fileno(), err.fileno()])
        code = _exit_code(connection, arguments, timeout_s)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read())
    return subprocess.CompletedProcess([sys.executable, *arguments], code, *texts)


def _exit_code(connection: socket.socket, arguments: Sequence[str], timeout_s: float) -> int:
    connection.settimeout(timeout_s)
    with connection.makefile() as answers:
        pid = int(answers.readline())
        try:
            return int(answers.readline())
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            raise subprocess.TimeoutExpired(list(arguments), timeout_s) from None


def _suits(env: Mapping[str, str]) -> bool:
    """Whether all that libraries look at when they are imported is as the warm Python found it."""
    names = {name for name in {*env, *OURS} if name.startswith(READ_AT_IMPORT)} - SET_BY_TORCH
    return all(env.get(name) == OURS.get(name) for name in names)


@cache
def warm_python() -> str:
    """The socket of this process' own, started now. It ends with this process."""
    folder = tempfile.mkdtemp(prefix="warm-python-")
    program = Path(__file__).with_name("warm_python.py")
    process = subprocess.Popen([sys.executable, str(program), folder], env=OURS, stdin=subprocess.PIPE)
    deadline = time.monotonic() + STARTING_S
    while not Path(folder, "requests").exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the warm Python did not start: exit status {process.returncode}")
        time.sleep(0.05)
    atexit.register(process.communicate)  # closes its standard input and waits
    return f"{folder}/requests"
