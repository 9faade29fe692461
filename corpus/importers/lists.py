"""Folders that hold lists: LJSpeech, M-AILABS, Common Voice, and the lists of Piper, Coqui, VITS, csv and JSON."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from corpus.findings import Finding, error, shown
from corpus.importers.items import Imported, Item, RecordingFinder, one_line
from corpus.layouts import Layout, joined_text, recognise, split_row
from corpus.list_text import Line, read_list_text

LIST_EXTENSIONS = (".csv", ".txt", ".tsv", ".json", ".jsonl", ".list", ".lst")
MAX_DEPTH = 6  # of folders that hold a list, as M-AILABS has
MAX_LISTS = 2000
MAX_LIST_BYTES = 1 << 30
COMMON_VOICE = ("validated.tsv", "train.tsv", "dev.tsv", "test.tsv")
LEAST_FOUND = 0.5  # of the lines of a list; with fewer it is about something else


def read_common_voice(folder: Path) -> Imported | None:
    """`clips/` with tables; validated.tsv, which the others are drawn from, if it is there."""
    tables = [folder / name for name in COMMON_VOICE if (folder / name).is_file()]
    if not tables or not (folder / "clips").is_dir():
        return None
    used = tables[:1] if tables[0].name == "validated.tsv" else tables
    read = [list_items(path, folder) for path in used]
    items, findings = _joined([found for found in read if found is not None])
    why = f"clips/ and {', '.join(path.name for path in used)} are there"
    return Imported("Common Voice", why, items, findings) if items else None


def read_m_ailabs(folder: Path) -> Imported | None:
    """A metadata.csv with wavs/ beside it in each book; the reader's name is the folder above the book."""
    books = [path for path in sorted(folder.rglob("metadata.csv"))[:MAX_LISTS] if (path.parent / "wavs").is_dir()]
    books = [path for path in books if path.parent != folder]
    if not books:
        return None
    items: list[Item] = []
    findings: list[Finding] = []
    for path in books:
        found = list_items(path, path.parent)
        if found is not None:
            speaker = _reader_of(path, folder)
            items += [replace(item, speaker=item.speaker or speaker) for item in found.items]
            findings += found.findings
    why = f"{len(books)} folders hold metadata.csv and wavs/"
    return Imported("M-AILABS", why, tuple(items), tuple(findings)) if items else None


def _reader_of(path: Path, folder: Path) -> str | None:
    """.../by_book/female/judy_bieber/the_master_key/metadata.csv -> judy_bieber; mixed books name none."""
    parts = path.parent.relative_to(folder).parts
    return parts[-2] if len(parts) > 1 else parts[0]


def read_lj_speech(folder: Path) -> Imported | None:
    """`metadata.csv` of id|text|normalised text, and `wavs/`."""
    path = folder / "metadata.csv"
    if not path.is_file() or not (folder / "wavs").is_dir():
        return None
    found = list_items(path, folder)
    if found is None or found.layout.roles[:2] != ("id", "text"):
        return None
    return Imported("LJSpeech", f"metadata.csv and wavs/ are there; {found.layout.why}", found.items, found.findings)


def read_lists(folder: Path) -> Imported | None:
    """Any lists whose columns say what they are; recordings that several name count once."""
    read = {path: found for path in list_files(folder) if (found := list_items(path, folder)) is not None}
    if not read:
        return None
    layout = max(read.values(), key=lambda found: len(found.items)).layout
    items, findings = _joined(list(read.values()))
    names = ", ".join(str(path.relative_to(folder)) for path in read)
    return Imported(layout.name, f"{names}: {layout.columns}, {layout.why}", items, findings)


@dataclass(frozen=True)
class ListItems:
    """Items of one list, what could not be used, and its layout."""

    items: tuple[Item, ...]
    findings: tuple[Finding, ...]
    layout: Layout


def list_items(path: Path, folder: Path) -> ListItems | None:
    """What one list names, looked up below its folder; None where it is no list of recordings that are there."""
    content = read_list_text(path)
    finder = RecordingFinder((path.parent, folder, path.parent.parent))
    lines = [line.text for line in content.lines if line.text is not None]
    layout = recognise(lines, exists=lambda name: finder.find(name) is not None)
    if layout is None or not {"wav", "id"} & set(layout.roles) or not {"text", "normalised text"} & set(layout.roles):
        return None
    items: list[Item] = []
    findings = [finding for finding in content.findings if finding.severity == "error"]
    for i, line in enumerate(content.lines):
        if i >= layout.header_lines and line.text is not None:
            outcome = _item(line, line.text, layout, path, finder)
            if isinstance(outcome, Item):
                items.append(outcome)
            else:
                findings.append(outcome)
    return ListItems(tuple(items), tuple(findings), layout) if items else None


def _item(line: Line, text: str, layout: Layout, path: Path, finder: RecordingFinder) -> Item | Finding:
    cells = _cells(text, layout)
    if len(cells) > len(layout.roles):
        cells = joined_text(text, layout) or cells
    if len(cells) != len(layout.roles):
        wrong = f'{len(cells)} columns where {len(layout.roles)} belong: "{shown(text)}"'
        quoted = ", or put a text that holds commas in quotes" if layout.separator in (",", ";") else ""
        return error("columns", wrong, f"correct the line{quoted}").at(path, line.number)
    by_role = dict(zip(reversed(layout.roles), reversed(cells), strict=True))  # the first of two alike
    name = by_role.get("wav") or by_role.get("id") or ""
    recording = finder.find(name)
    if recording is None:
        missing = error("missing file", f'no recording "{shown(name)}"', "restore it, or leave the line out")
        return missing.at(path, line.number)
    said = one_line(by_role.get("normalised text") or by_role.get("text") or "")
    return Item(recording, said, by_role.get("speaker") or None, path, line.number)


def _cells(text: str, layout: Layout) -> list[str]:
    if layout.separator != "json":
        return split_row(text, layout.separator)
    try:
        values = json.loads(text)
    except ValueError:
        return []
    return ["" if value is None else str(value) for value in values.values()] if isinstance(values, dict) else []


def list_files(folder: Path) -> Iterator[Path]:
    """Files that may be lists, not the texts that lie beside recordings one by one."""
    n = 0
    for path in sorted(folder.rglob("*")):
        is_list = path.suffix.lower() in LIST_EXTENSIONS and len(path.relative_to(folder).parts) <= MAX_DEPTH
        if not is_list or not path.is_file() or path.stat().st_size > MAX_LIST_BYTES:
            continue
        if path.suffix.lower() == ".txt" and any(path.with_suffix(e).is_file() for e in (".wav", ".flac", ".mp3")):
            continue
        n += 1
        if n > MAX_LISTS:
            return
        yield path


def _joined(lists: Sequence[ListItems]) -> tuple[tuple[Item, ...], tuple[Finding, ...]]:
    """Items of several lists. What an earlier list names, a later one adds no more; a list itself stays as it is."""
    items: list[Item] = []
    named: set[Path] = set()
    for found in lists:
        items += [item for item in found.items if item.audio_path not in named]
        named |= {item.audio_path for item in found.items}
    return tuple(items), tuple(finding for found in lists for finding in found.findings)
