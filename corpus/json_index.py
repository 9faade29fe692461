"""What was found out about files, kept by their hashes in one JSON file that several runs may share."""

import json
import logging
from pathlib import Path
from typing import Any

from files import write_atomic

logger = logging.getLogger(__name__)


class JsonIndex:
    """A dictionary of JSON objects on disk; safe to share between threads. May be deleted at any time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = _read(path)
        self._added: dict[str, dict[str, Any]] = {}

    def get(self, key: str) -> dict[str, Any] | None:
        """What is known, None if nothing is."""
        return self._added.get(key) or self._known.get(key)

    def add(self, key: str, value: dict[str, Any]) -> None:
        self._added[key] = value

    def write(self) -> None:
        """Adds what is new to the file on disk, which another run may have changed meanwhile."""
        if self._added:
            write_atomic(self._path, json.dumps(_read(self._path) | self._added))


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as caught:
        logger.warning("index=%s unreadable=%s: every recording is measured again", path, caught)
        return {}
    return (
        {key: value for key, value in entries.items() if isinstance(value, dict)} if isinstance(entries, dict) else {}
    )
