"""A Python that has imported torch and other libraries, and forks itself for each command that tests run.

    python warm_python.py FOLDER

A command that starts cold spends seven of twelve seconds of processor time on these imports. None of the project's own
modules is among them: each command imports, sets and ends its own. Requests come over the socket FOLDER/requests:
arguments, folder and environment as JSON, with the three files that the command reads and writes. The exit status comes
back. It ends when its standard input does, that is with the process that started it.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import select
import shutil
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import NoReturn

LIBRARIES = (
    "torch", "torch._dynamo", "torch.utils.tensorboard", "scipy.signal", "matplotlib.figure",
    "matplotlib.backends.backend_agg", "soundfile", "soxr", "librosa", "pydantic", "rich.progress", "yaml",
)  # fmt: skip


def main(folder: Path) -> None:
    for name in LIBRARIES:
        importlib.import_module(name)
    gc.freeze()  # or a collection in a fork would copy the pages of all these objects
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who answer requests
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "unready"))
        server.listen()
        (folder / "unready").rename(folder / "requests")
        while server in select.select([server, sys.stdin], [], [])[0]:
            connection, _ = server.accept()
            if os.fork() == 0:
                server.close()
                answer(connection)
                return
            connection.close()
    shutil.rmtree(folder)


def answer(connection: socket.socket) -> None:
    """In a child: forks the command, tells its process id and, once it has ended, its status.

    Raises in the command's own process what the command raised.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    message, files, _, _ = socket.recv_fds(connection, 1 << 20, 3)
    request = json.loads(message)
    pid = os.fork()
    if pid == 0:
        connection.close()
        become(request, files)
        return
    connection.sendall(f"{pid}\n".encode())
    _, status = os.waitpid(pid, 0)
    connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def become(request: dict, files: list[int]) -> None:
    """What a new interpreter would be with these arguments, in this folder and environment."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    words = request["arguments"]
    code: object = None
    try:
        if words[0] == "-m":
            sys.argv, sys.path[0] = words[1:], request["cwd"]
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv, sys.path[0] = words, str(Path(words[0]).parent)
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as asked:
        code = asked.code
    end(code)


def end(code: object) -> NoReturn:
    """As an interpreter ends, but that it takes no module apart: that copies all pages, 1.6 s of processor time."""
    threading._shutdown()  # type: ignore[attr-defined]  # waits for all threads but daemons
    atexit._run_exitfuncs()
    if not isinstance(code, int | None):
        print(code, file=sys.stderr)
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit((code or 0) & 0xFF)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
