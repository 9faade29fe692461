"""What was found out about files, kept by their hashes in one JSON file that several runs may share."""

import json
import time
from pathlib import Path
from threading import Lock
from typing import Any

from common.cache_dir import cache_file
from common.log import LOG

WRITE_EVERY_S = 60.0


class JsonIndex:
    """A dictionary of JSON objects on disk; safe to share between threads. May be deleted at any time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = _read(path)
        self._added: dict[str, dict[str, Any]] = {}
        self._written_at = time.monotonic()
        self._lock = Lock()

    def get(self, key: str) -> dict[str, Any] | None:
        """What is known, None if nothing is."""
        return self._added.get(key) or self._known.get(key)

    def add(self, key: str, value: dict[str, Any]) -> None:
        """Not on disk before `write`."""
        with self._lock:
            self._added[key] = value

    def write(self) -> None:
        """Adds what is new to the file on disk, which another run may have changed meanwhile."""
        with self._lock:
            if self._added:
                self._known = _read(self._path) | self._known | self._added
                with cache_file(self._path) as file:
                    file.write(json.dumps(self._known).encode("utf-8"))
                self._added = {}
            self._written_at = time.monotonic()

    def write_now_and_then(self) -> None:
        """`write`, if the last one is long enough ago: a killed process loses no more than that."""
        if time.monotonic() - self._written_at > WRITE_EVERY_S:
            self.write()


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as caught:
        LOG.warning("%s can't be read (%s): what it held is computed again", path, caught)
        return {}
    return (
        {key: value for key, value in entries.items() if isinstance(value, dict)} if isinstance(entries, dict) else {}
    )
