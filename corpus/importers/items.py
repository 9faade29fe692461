"""What every reader of a layout gives, and the order in which readers are asked."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from corpus.findings import Finding, error, shown
from corpus.list_checks import AUDIO_EXTENSIONS
from corpus.near_files import SOUND_EXTENSIONS

MAX_NAME = 1000  # characters; what is longer is a text
SOUND_FOLDERS = ("wavs", "wav", "clips", "audio", "")


@dataclass(frozen=True)
class Item:
    """One recording with its text; speaker None where the layout names none. source, line: where it was listed."""

    audio_path: Path
    text: str
    speaker: str | None
    source: Path
    line: int = 0


@dataclass(frozen=True)
class Imported:
    """What a folder was taken for and why, its usable items in order, and what could not be used."""

    layout: str
    why: str
    items: tuple[Item, ...]
    findings: tuple[Finding, ...] = ()


Reader = Callable[[Path], Imported | None]


class RecordingFinder:
    """Finds what lists call recordings, by path or id, in the usual places of some folders; reads each folder once."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = [folder / sounds for folder in dict.fromkeys(folders) for sounds in SOUND_FOLDERS]
        self._names: dict[Path, frozenset[str]] = {}

    def find(self, name: str) -> Path | None:
        """The first recording of that name; None if there is none."""
        if not name or "\0" in name or len(name) > MAX_NAME:
            return None
        has_extension = Path(name).suffix.lower() in SOUND_EXTENSIONS
        for folder in self._folders:
            path = folder / name
            there = self._listing(path.parent)
            for candidate in [path.name] if has_extension else [path.name + e for e in SOUND_EXTENSIONS]:
                if candidate in there and (path.parent / candidate).is_file():
                    return path.parent / candidate
        return None

    def _listing(self, folder: Path) -> frozenset[str]:
        if folder not in self._names:
            try:
                self._names[folder] = frozenset(os.listdir(folder))
            except OSError:
                self._names[folder] = frozenset()
        return self._names[folder]


def checked(items: Sequence[Item], *, root: Path) -> tuple[list[Item], list[Finding]]:
    """Items that our lists can hold, and what is wrong with the others."""
    good: list[Item] = []
    findings: list[Finding] = []
    for item in items:
        wrong = _unlistable(item, root)
        if wrong is None:
            good.append(item)
        else:
            findings.append(wrong.at(item.source, item.line))
    return good, findings


def _unlistable(item: Item, root: Path) -> Finding | None:
    name = str(item.audio_path)
    if not item.text:
        return error("empty text", f"nothing to read: {shown(item.audio_path.name)}", "write the text, or leave it out")
    if "|" in item.text or "|" in name or "|" in (item.speaker or ""):
        return error("bar in a column", f'"{shown(item.text)}" of {shown(name)} holds a bar (|)', "replace the bar")
    if item.audio_path.suffix.lower() not in AUDIO_EXTENSIONS:
        convert = f"convert it, as with: ffmpeg -i {item.audio_path.name} {item.audio_path.stem}.flac"
        return error("format", f"{shown(name)} is in a format that training does not read", convert)
    if not name.isprintable():
        return error("bad file name", f'"{shown(name)}" holds characters that nobody sees', "rename the file")
    if not item.audio_path.resolve().is_relative_to(root.resolve()):
        return error("unsafe path", f"{shown(name)} leads outside {root}", "copy it into the folder")
    return None


def one_line(text: str) -> str:
    """Text as it stands in a list: line breaks and runs of spaces become one space."""
    return " ".join(text.split())
