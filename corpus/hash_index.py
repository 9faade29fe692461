"""Content hashes of recordings, remembered by size and times: a file system sets the time of the last change itself, so
that a recording written anew under its old size and date is noticed too.
"""

import hashlib
from pathlib import Path

from corpus.json_index import JsonIndex


class HashIndex:
    """sha256 of files, remembered by path, size and times; safe to share between threads."""

    def __init__(self, path: Path) -> None:
        self._index = JsonIndex(path)

    def sha256(self, path: Path) -> str:
        """Hex digest of the file's content; OSError if it cannot be read."""
        status = path.stat()
        stamp = [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
        known = self._index.get(str(path))
        if known is not None and known.get("stamp") == stamp:
            return str(known["sha256"])
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        self._index.add(str(path), {"stamp": stamp, "sha256": digest})
        return digest

    def write(self) -> None:
        """Adds what is new to the file on disk, which another run may have changed meanwhile."""
        self._index.write()
