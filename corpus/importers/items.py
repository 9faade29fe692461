"""What every reader of a layout gives, and the order in which readers are asked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from corpus.findings import Finding, error, shown
from corpus.list_checks import AUDIO_EXTENSIONS
from corpus.near_files import SOUND_EXTENSIONS

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


def found_recording(name: str, folders: Sequence[Path]) -> Path | None:
    """The recording that a list calls `name`, as a path or an id, in the usual places of the folders."""
    if not name or "\0" in name:
        return None
    has_extension = Path(name).suffix.lower() in SOUND_EXTENSIONS
    names = [name] if has_extension else [name + extension for extension in SOUND_EXTENSIONS]
    for folder in folders:
        for sounds in SOUND_FOLDERS:
            for candidate in names:
                path = folder / sounds / candidate
                if _is_file(path):
                    return path
    return None


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


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
