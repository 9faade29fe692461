"""The parent's side of the helper processes in `text/children`: start, ask, end, and say what went wrong."""

import contextlib
import importlib.metadata
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from common.errors import UserError
from common.processors import n_processors

ROOT = Path(__file__).resolve().parent.parent
START_S = 180.0  # a first import of torch from a cold disk took 12 s; a busy machine takes several times that
ANSWER_S = 120.0  # for one chunk of texts; 64 long sentences take 3 s
END_S = 5.0
CHUNK = 64  # texts at once: enough for a model's batches, little enough to share evenly
MAX_PROCESSES = 4
STDERR_LINES = 5
# What Python and its libraries need. Everything else stays here: tokens and passwords above all.
_PASSED_ON = (
    "PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME",
    "VIRTUAL_ENV", "TMPDIR", "TEMP", "TMP", "SYSTEMROOT", "USERPROFILE", "OPENBLAS_CORETYPE",
)  # fmt: skip
REQUIREMENTS = "requirements-phonemes.txt"


def check_installed(packages: Sequence[str], *, purpose: str) -> None:
    """UserError in one line that says what to install."""
    missing = [package for package in packages if version_of(package) is None]
    if missing:
        raise UserError(f"{purpose} needs {' and '.join(missing)}: pip install -r {REQUIREMENTS}")


def version_of(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


class Child:
    """One process of `text.children.<name>`; `ask` it from one thread at a time."""

    def __init__(self, name: str, settings: Mapping[str, Any]) -> None:
        self._name = name
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115, closed by `_end`
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"text.children.{name}"],
            cwd=ROOT, env=_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr,
        )  # fmt: skip
        self._answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        assert self._process.stdout
        threading.Thread(target=_collect, args=(self._process.stdout, self._answers), daemon=True).start()
        self.close = weakref.finalize(self, _end, self._process, self._stderr, os.getpid())
        self._exchange(settings, START_S, "start")

    def ask(self, request: Mapping[str, Any], *, timeout_s: float = ANSWER_S) -> Any:
        """The answer. UserError if the process refuses, died, or stays silent for longer than that."""
        return self._exchange(request, timeout_s, "answer")

    def _exchange(self, message: Mapping[str, Any], timeout_s: float, what: str) -> Any:
        assert self._process.stdin
        try:
            self._process.stdin.write(json.dumps(message).encode("ascii") + b"\n")
            self._process.stdin.flush()
            line = self._answers.get(timeout=timeout_s)
        except BrokenPipeError:
            line = b""
        except queue.Empty:
            raise self._failed(f"did not {what} within {timeout_s:.0f} s") from None
        if not line:
            raise self._failed("ended")
        reply = json.loads(line)
        if "refusal" in reply:
            self.close()
            raise UserError(reply["refusal"])
        return reply["answer"]

    def _failed(self, what: str) -> UserError:
        if what != "ended":
            self._process.kill()
        code = self._process.wait(timeout=END_S)
        self._stderr.seek(0)
        said = self._stderr.read().decode("utf-8", errors="replace").strip().splitlines()[-STDERR_LINES:]
        self.close()
        told = "; it said:\n  " + "\n  ".join(said) if said else ", without a word"
        return UserError(f"the process text.children.{self._name} {what} (exit code {code}){told}")


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {**kept, "OMP_NUM_THREADS": "1", "PYTHONUTF8": "1", "ORT_DISABLE_TELEMETRY": "1"}  # see common


def _collect(stdout: IO[bytes], answers: "queue.SimpleQueue[bytes]") -> None:
    with stdout:
        for line in stdout:
            answers.put(line)
    answers.put(b"")


def _end(process: "subprocess.Popen[bytes]", stderr: IO[bytes], owner: int) -> None:
    """End of input ends the child; one that does not listen is killed. A forked copy of the parent does nothing."""
    if os.getpid() != owner:
        return
    assert process.stdin
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    try:
        process.wait(timeout=END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    stderr.close()


_shared: dict[str, "Children"] = {}


def children_of(name: str, settings: Mapping[str, Any]) -> "Children":
    """The processes of that kind with those settings, the same for all front ends."""
    key = f"{name} {json.dumps(settings, sort_keys=True)}"
    if key not in _shared:
        _shared[key] = Children(name, settings)
    return _shared[key]


class Children:
    """Processes of one kind: one stays ready, as many as there are cores share a large batch."""

    def __init__(self, name: str, settings: Mapping[str, Any]) -> None:
        self._name = name
        self._settings = dict(settings)
        self._ready: list[Child] = []

    def read(self, texts: Sequence[str], **more: Any) -> list[Any]:
        """What the processes answer to `{"texts": [...], **more}`, text by text, in order."""
        chunks = [texts[start : start + CHUNK] for start in range(0, len(texts), CHUNK)]
        if not chunks:
            return []
        waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
        for index in range(len(chunks)):
            waiting.put(index)
        answers: list[list[Any]] = [[] for _ in chunks]

        def work(_: int) -> None:
            child = self._taken()
            try:
                while (index := _next(waiting)) is not None:
                    answers[index] = child.ask({"texts": list(chunks[index]), **more})
            except UserError:
                while _next(waiting) is not None:  # nothing more to do for the others either
                    pass
                child.close()
                raise
            self._ready.append(child)

        processes = min(len(chunks), n_processors(), MAX_PROCESSES)
        with ThreadPoolExecutor(processes) as pool:
            list(pool.map(work, range(processes)))
        while len(self._ready) > 1:
            self._ready.pop().close()
        return [answer for chunk in answers for answer in chunk]

    def _taken(self) -> Child:
        try:
            return self._ready.pop()
        except IndexError:
            return Child(self._name, self._settings)

    def close(self) -> None:
        while self._ready:
            self._ready.pop().close()


def _next(waiting: "queue.SimpleQueue[int]") -> int | None:
    try:
        return waiting.get_nowait()
    except queue.Empty:
        return None
