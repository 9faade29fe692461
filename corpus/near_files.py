"""The file that is there, where a list names one that is not: other case, other slashes, other extension, other folder.

Nothing is opened, and nothing outside the given folders is looked at.
"""

import os
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from corpus.findings import Finding, error, shown

SOUND_EXTENSIONS = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a", ".aac", ".webm", ".wma", ".aiff", ".aif")
LIST_EXTENSIONS = (".csv", ".txt", ".tsv")
MAX_INDEXED = 200_000  # files of all folders; beyond that only the named folder is searched
QUOTES = "\"'\u201c\u201d\u00ab\u00bb "


@dataclass(frozen=True)
class Near:
    """An existing file, and in words how its name differs from what the list says."""

    path: Path
    difference: str


class FileFinder:
    """Looks for files below folders; each folder is read once. bases: as for the filelist reader, in order."""

    def __init__(self, bases: Sequence[Path]) -> None:
        self._bases = tuple(dict.fromkeys(bases))
        self._entries = cache(_entries)
        self._by_name: dict[str, list[Path]] | None = None

    def near(self, column: str) -> Near | None:
        """The file that a list may mean by `column`, which itself names none; None if there is no likely one."""
        name = unquote(column.strip(QUOTES)).replace("\\", "/")
        parts = [part for part in PurePosixPath(name).parts if part not in ("/", ".")]
        if not parts or ".." in parts or "\0" in name:
            return None
        parts = parts[1:] if parts[0].endswith(":") else parts  # C:
        for base in self._bases:
            for first in range(len(parts)):  # an absolute path of another machine ends in what is here
                found = self._below(base, parts[first:])
                if found is not None:
                    return Near(found, _difference(column, parts, first, found, base))
        return self._elsewhere(parts[-1]) if parts else None

    def _below(self, base: Path, parts: Sequence[str]) -> Path | None:
        """The file at `parts` below a folder, letter case, Unicode form and extension aside."""
        folder = base
        for part in parts[:-1]:
            named = self._entries(folder).get(_plain(part), [])
            if len(named) != 1:
                return None
            folder = folder / named[0]
        entries = self._entries(folder)
        names = [parts[-1], *(_with_extension(parts[-1], extension) for extension in SOUND_EXTENSIONS)]
        for name in names:
            named = [entry for entry in entries.get(_plain(name), []) if (folder / entry).is_file()]
            if len(named) == 1:
                return folder / named[0]
        return None

    def _elsewhere(self, name: str) -> Near | None:
        if self._by_name is None:
            self._by_name = _indexed(self._bases)
        stem = _plain(PurePosixPath(name).stem if _is_sound(name) else name)
        found = [path for path in self._by_name.get(stem, []) if path.is_file()]
        return Near(found[0], f"it lies in {found[0].parent}") if len(found) == 1 else None


def missing_file(column: str, finder: FileFinder, *, places: Sequence[Path]) -> Finding:
    """What to say of a first column that names no file: which file is there, or where was looked."""
    near = finder.near(column)
    if near is None:
        looked = ", ".join(str(place) for place in places)
        return error(
            "missing file",
            f'no such file: "{shown(column)}"; looked in {looked}',
            "correct the path, or restore the recording",
        )
    return error(
        "misspelled path",
        f'no such file: "{shown(column)}", but {near.path} is there ({near.difference})',
        "correct the list",
    )


def list_that_is_there(path: Path) -> str:
    """`, but ... is there` for the name of a filelist that is no file, where one lies there under another spelling."""
    if path.is_dir():
        return ", but a folder"
    own = path.expanduser()
    if own != path and own.is_file():
        return f", but {own} is there (nothing puts your home in the place of ~ here)"
    own = Path(re.sub(r"[\\/]+", "/", str(own).strip(QUOTES)))
    folder = _folder_like(own.parent)
    if folder is None:
        return ""
    entries = _entries(folder)
    for name in (own.name, *(own.stem + extension for extension in LIST_EXTENSIONS)):
        named = [entry for entry in entries.get(_plain(name), []) if (folder / entry).is_file()]
        if len(named) == 1:
            return f", but {folder / named[0]} is there"
    return ""


def _folder_like(path: Path) -> Path | None:
    """The folder of this name, letter case and Unicode form of its parts aside."""
    if path.is_dir() or path == path.parent:
        return path if path.is_dir() else None
    above = _folder_like(path.parent)
    if above is None:
        return None
    named = [entry for entry in _entries(above).get(_plain(path.name), []) if (above / entry).is_dir()]
    return above / named[0] if len(named) == 1 else None


def _difference(column: str, parts: Sequence[str], first: int, found: Path, base: Path) -> str:
    said = PurePosixPath(*parts[first:])
    there = PurePosixPath(found.relative_to(base).as_posix())
    reasons = [
        ("backslashes", "\\" in column),
        ("quotes or spaces around it", column != column.strip(QUOTES)),
        ("percent signs for letters", "%" in column and unquote(column) != column),
        ("other folder", first > 0),
        ("Unicode form", _nfc(str(said.with_suffix(""))) == _nfc(str(there.with_suffix(""))) and _differ(said, there)),
        ("letter case", _nfc(str(said)) != _nfc(str(there)) and _nfc(str(said)).lower() == _nfc(str(there)).lower()),
        ("extension", _plain(said.name) != _plain(there.name)),
    ]
    return ", ".join(name for name, applies in reasons if applies) or "another spelling"


def _differ(said: PurePosixPath, there: PurePosixPath) -> bool:
    return _nfc(str(said)) == _nfc(str(there)) and said != there


def _entries(folder: Path) -> dict[str, list[str]]:
    """Names in a folder by their plain form; empty if it can't be read."""
    found: dict[str, list[str]] = {}
    try:
        for name in sorted(os.listdir(folder)):
            found.setdefault(_plain(name), []).append(name)
    except (OSError, ValueError):
        return {}
    return found


def _indexed(bases: Sequence[Path]) -> dict[str, list[Path]]:
    """Recordings anywhere below the folders, by plain stem."""
    found: dict[str, list[Path]] = {}
    n = 0
    for base in bases:
        for folder, _, names in os.walk(base):
            for name in names:
                n += 1
                if n > MAX_INDEXED:
                    return {}
                if _is_sound(name):
                    known = found.setdefault(_plain(PurePosixPath(name).stem), [])
                    path = Path(folder) / name
                    if path not in known:
                        known.append(path)
    return found


def _is_sound(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in SOUND_EXTENSIONS


def _with_extension(name: str, extension: str) -> str:
    return (PurePosixPath(name).stem if _is_sound(name) else name) + extension


def _nfc(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _plain(name: str) -> str:
    return _nfc(name).casefold()
