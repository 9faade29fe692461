"""Content hashes of recordings, remembered by size and time."""

import hashlib
import json
from pathlib import Path

from common.cache_dir import cache_file
from common.log import LOG

HASH_BLOCK_BYTES = 1 << 20


# ---- hashes


class HashIndex:
    """sha256 of files, remembered by path, size and modification time; safe to share between threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = _read_index(path)
        self._added: dict[str, tuple[int, int, str]] = {}

    def sha256(self, path: Path) -> str:
        """Hex digest of the file's content; OSError if it cannot be read."""
        status = path.stat()
        known = self._known.get(str(path))
        if known is not None and known[:2] == (status.st_size, status.st_mtime_ns):
            return known[2]
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(HASH_BLOCK_BYTES):
                digest.update(block)
        self._added[str(path)] = (status.st_size, status.st_mtime_ns, digest.hexdigest())
        return digest.hexdigest()

    def write(self) -> None:
        """Adds what is new to the file on disk, which another run may have changed meanwhile."""
        if self._added:
            merged = _read_index(self._path) | self._added
            with cache_file(self._path) as file:
                file.write(json.dumps(merged).encode("utf-8"))


def _read_index(path: Path) -> dict[str, tuple[int, int, str]]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return {name: (int(size), int(mtime_ns), str(sha256)) for name, (size, mtime_ns, sha256) in entries.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        LOG.warning("index=%s unreadable=%s: every recording is hashed again", path, error)
        return {}
