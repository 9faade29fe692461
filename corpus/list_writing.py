"""Our lists on disk: `path|text` or `path|text|speaker`, UTF-8, Unix line ends."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.files import write_atomic
from corpus.splitting import Listed, validation_lines


@dataclass(frozen=True)
class Entry:
    """One line to be written; path as it will stand there, relative to the dataset folder."""

    path: str
    text: str
    speaker: str | None = None


@dataclass(frozen=True)
class Split:
    """Lines of both lists, and whether they name speakers."""

    training: tuple[Entry, ...]
    validation: tuple[Entry, ...]
    has_speakers: bool


def split_entries(entries: Sequence[Entry], *, seed: int, share: float) -> Split:
    """Training and validation lines by seed. One speaker alone is not named: a list names all or none."""
    has_speakers = len({entry.speaker for entry in entries}) > 1
    listed = [Listed(entry.text, entry.speaker or "" if has_speakers else "") for entry in entries]
    validating = set(validation_lines(listed, seed=seed, share=share))
    parts: tuple[list[Entry], list[Entry]] = [], []
    for i, entry in enumerate(entries):
        parts[i in validating].append(entry)
    return Split(tuple(parts[0]), tuple(parts[1]), has_speakers)


def list_text_of(entries: Sequence[Entry], *, has_speakers: bool) -> str:
    """What a list file holds."""
    return "".join(f"{_line(entry, has_speakers=has_speakers)}\n" for entry in entries)


def write_list(path: Path, entries: Sequence[Entry], *, has_speakers: bool) -> None:
    """The file appears whole or not at all; OSError if the disk refuses."""
    write_atomic(path, list_text_of(entries, has_speakers=has_speakers))


def _line(entry: Entry, *, has_speakers: bool) -> str:
    cells = (entry.path, entry.text, entry.speaker or "unnamed") if has_speakers else (entry.path, entry.text)
    assert not any("|" in cell or "\n" in cell for cell in cells), f"a bar or line break in {cells}"
    return "|".join(cells)
