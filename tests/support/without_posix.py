"""Imported first, it takes away what Windows lacks: modules, functions, signals, and opening a folder.

The libraries are imported before: theirs for POSIX use all that. `python -c "import support.without_posix; ..."`
"""

import os
import shutil
import signal
import subprocess  # noqa: F401 - these too
import sys
import tempfile  # noqa: F401
from importlib.machinery import ModuleSpec
from typing import Any

import filelock  # noqa: F401
import psutil  # noqa: F401
import soundfile  # noqa: F401
import torch.distributed.elastic.agent.server.local_elastic_agent  # noqa: F401

MODULES = ("fcntl", "resource", "termios", "pwd", "grp", "pty", "tty", "syslog")
FUNCTIONS = (
    "killpg", "getpgid", "setsid", "setpgid", "fork", "forkpty", "wait", "wait4", "nice", "mkfifo", "uname",
    "getloadavg", "sched_getaffinity", "sched_setaffinity", "getpriority", "posix_fadvise", "sync", "chown",
    "O_DIRECTORY",
)  # fmt: skip
SIGNALS = (
    "SIGUSR1", "SIGUSR2", "SIGKILL", "SIGHUP", "SIGALRM", "SIGCHLD", "SIGPIPE", "SIGQUIT", "SIGTSTP", "SIGSTOP",
    "setitimer", "alarm", "pthread_sigmask", "sigwait", "pause",
)  # fmt: skip


class Blocked:
    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name in MODULES:
            raise ModuleNotFoundError(f"{name} is not on Windows", name=name)
        return None


sys.meta_path.insert(0, Blocked())  # type: ignore[arg-type]
for name in MODULES:
    sys.modules.pop(name, None)
for module, names in ((os, FUNCTIONS), (signal, SIGNALS)):
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
shutil._use_fd_functions = False  # type: ignore[attr-defined]
real_open = os.open


def open_no_folder(path: Any, *arguments: Any, **more: Any) -> int:
    if os.path.isdir(path):
        raise PermissionError(13, "Permission denied", str(path))
    return real_open(path, *arguments, **more)


os.open = open_no_folder
