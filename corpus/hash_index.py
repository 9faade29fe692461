"""Content hashes of recordings, remembered by size and times: a file system sets the time of the last change itself, so
that a recording written anew under its old size and date is noticed too.
"""

import hashlib
import json
from pathlib import Path

from common.cache_dir import cache_file
from common.log import LOG

HASH_BLOCK_BYTES = 1 << 20
Known = tuple[int, int, int, str]  # bytes, modified and changed in ns, sha256


# ---- hashes


class HashIndex:
    """sha256 of files, remembered by path, size and times; safe to share between threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = _read_index(path)
        self._added: dict[str, Known] = {}

    def sha256(self, path: Path) -> str:
        """Hex digest of the file's content; OSError if it cannot be read."""
        status = path.stat()
        known = self._known.get(str(path))
        if known is not None and known[:3] == (status.st_size, status.st_mtime_ns, status.st_ctime_ns):
            return known[3]
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(HASH_BLOCK_BYTES):
                digest.update(block)
        self._added[str(path)] = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, digest.hexdigest())
        return digest.hexdigest()

    def write(self) -> None:
        """Adds what is new to the file on disk, which another run may have changed meanwhile."""
        if self._added:
            merged = _read_index(self._path) | self._added
            with cache_file(self._path) as file:
                file.write(json.dumps(merged).encode("utf-8"))


def _of_four(entries: dict[str, list]) -> list[tuple[str, list]]:
    return [(name, entry) for name, entry in entries.items() if len(entry) == 4]


def _read_index(path: Path) -> dict[str, Known]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        # entries of version 0.1.0 have three parts, and are hashed again
        return {name: (int(n), int(m), int(c), str(sha)) for name, (n, m, c, sha) in _of_four(entries)}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        LOG.warning("index=%s unreadable=%s: every recording is hashed again", path, error)
        return {}
