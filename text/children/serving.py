"""The child's side: one JSON answer for each JSON line, until standard input ends or the parent is gone."""

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

Answer = Callable[[dict[str, Any]], Any]
PARENT_CHECK_S = 1.0


class Refusal(Exception):
    """Something that the user must put right; the parent raises it as a UserError."""


def serve(prepare: Callable[[dict[str, Any]], Answer]) -> int:
    """`prepare` gets the settings, the first line, and returns what answers every further line."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="ascii", newline="\n")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # libraries that print must not disturb the answers
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    lines = iter(sys.stdin.buffer.readline, b"")
    try:
        answer = prepare(json.loads(next(lines)))
        _write(answers, {"answer": "ready"})
        for line in lines:
            _write(answers, {"answer": answer(json.loads(line))})
    except Refusal as refusal:
        _write(answers, {"refusal": str(refusal)})
        return 2
    except (StopIteration, BrokenPipeError):  # the parent left
        return 0
    return 0


def _write(answers: Any, message: dict[str, Any]) -> None:
    answers.write(json.dumps(message) + "\n")
    answers.flush()


def _end_with_parent(parent: int) -> None:
    """Also while an answer is being worked out: a killed parent must leave nobody behind."""
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_S)
    os._exit(0)
