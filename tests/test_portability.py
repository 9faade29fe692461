"""Commands and modules load without what only POSIX has: Windows lacks it."""

import subprocess
import sys
from pathlib import Path

import pytest

from support.paths import REPOSITORY

WITHOUT_POSIX = """
import os, signal, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name in ("fcntl", "resource", "termios", "pwd", "grp", "pty", "tty"):
            raise ModuleNotFoundError(f"{name} is not on Windows", name=name)

sys.meta_path.insert(0, Blocked())
for name in ("killpg", "getpgid", "setsid", "fork", "getuid", "geteuid"):
    delattr(os, name)
for name in ("SIGUSR1", "SIGUSR2", "SIGKILL", "SIGHUP", "SIGALRM"):
    delattr(signal, name)
"""
COMMANDS = sorted(path.name for path in REPOSITORY.glob("*.py") if "__main__" in path.read_text(encoding="utf-8"))


def run_without_posix(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    source = f"{WITHOUT_POSIX}\nsys.path.insert(0, {str(REPOSITORY)!r})\n{code}"
    return subprocess.run([sys.executable, "-c", source, *arguments], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("script", COMMANDS)
def test_a_command_begins_without_what_only_posix_has(script: str) -> None:
    path = str(REPOSITORY / script)
    code = f"import runpy\nsys.argv = [{path!r}, '--help']\nrunpy.run_path({path!r}, run_name='__main__')"
    done = run_without_posix(code)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout.lower()


def test_the_lock_of_a_run_needs_no_fcntl(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from common.errors import UserError
from run_directory.paths import exclusive_lock, is_in_use
place = Path({str(tmp_path / "run")!r})
with exclusive_lock(place, what_next="wait"):
    (place / "run.json").write_text("{{}}")
    print(is_in_use(place))
    try:
        with exclusive_lock(place, what_next="wait"):
            print("twice")
    except UserError as error:
        print(error)
print(is_in_use(place))
"""
    done = run_without_posix(code)
    refused = f"{tmp_path / 'run'}: another is at work in it; wait"
    assert done.stdout.splitlines() == ["True", refused, "False"], done.stderr
