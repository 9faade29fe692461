"""Folders that hold lists: LJSpeech, M-AILABS, Common Voice, and the lists of Piper, Coqui, VITS, csv and JSON."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from corpus.findings import Finding, error, shown
from corpus.importers.items import Imported, Item, found_recording, one_line
from corpus.layouts import Layout, recognise, split_row
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
            items += [Item(i.audio_path, i.text, i.speaker or speaker, i.source, i.line) for i in found[0]]
            findings += found[1]
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
    layout = _layout(path, folder)
    found = list_items(path, folder)
    if layout is None or found is None or layout.roles[:2] != ("id", "text"):
        return None
    return Imported("LJSpeech", f"metadata.csv and wavs/ are there; {layout.why}", *found)


def read_lists(folder: Path) -> Imported | None:
    """Any lists whose columns say what they are; those over the same recordings count once."""
    read = {path: (layout, found) for path in _list_files(folder) if (layout := _layout(path, folder)) is not None
            and (found := list_items(path, folder)) is not None}  # fmt: skip
    if not read:
        return None
    most = max(read, key=lambda path: len(read[path][1][0]))
    layout = read[most][0]
    items, findings = _joined([found for _, found in read.values()])
    names = ", ".join(str(path.relative_to(folder)) for path in read)
    why = f"{names}: {layout.columns}, {layout.why}"
    return Imported(layout.name, why, items, findings)


def list_items(path: Path, folder: Path) -> tuple[tuple[Item, ...], tuple[Finding, ...]] | None:
    """Items of one list, looked up below its folder, and what could not be used; None where it is no such list."""
    content = read_list_text(path)
    layout = _layout(path, folder)
    if layout is None:
        return None
    items: list[Item] = []
    findings = [finding for finding in content.findings if finding.severity == "error"]
    names: list[str] = []
    for i, line in enumerate(content.lines):
        if i < layout.header_lines and line.text is not None:
            names = split_row(line.text, layout.separator)
        elif line.text is not None:
            outcome = _item(line, layout, path, folder, len(names) or len(layout.roles))
            (items if isinstance(outcome, Item) else findings).append(outcome)  # type: ignore[arg-type]
    return (tuple(items), tuple(findings)) if items else None


def _item(line: Line, layout: Layout, path: Path, folder: Path, width: int) -> Item | Finding:
    assert line.text is not None
    cells = _cells(line.text, layout)
    if len(cells) != width:
        where = f'{len(cells)} columns where {width} belong: "{shown(line.text)}"'
        return error("columns", where, "correct the line").at(path, line.number)
    by_role = dict(zip(reversed(layout.roles), reversed(cells), strict=True))  # the first of two alike
    name = by_role.get("wav") or by_role.get("id") or ""
    recording = found_recording(name, _folders(path, folder))
    if recording is None:
        return error("missing file", f'no recording "{shown(name)}"', "restore it, or leave the line out").at(
            path, line.number
        )
    text = one_line(by_role.get("normalised text") or by_role.get("text") or "")
    return Item(recording, text, by_role.get("speaker") or None, path, line.number)


def _cells(text: str, layout: Layout) -> list[str]:
    if layout.separator != "json":
        return split_row(text, layout.separator)
    try:
        values = json.loads(text)
    except ValueError:
        return []
    return ["" if value is None else str(value) for value in values.values()] if isinstance(values, dict) else []


def _layout(path: Path, folder: Path) -> Layout | None:
    """The layout of a list that names recordings which are there."""
    content = read_list_text(path)
    lines = [line.text for line in content.lines if line.text is not None]
    folders = _folders(path, folder)
    layout = recognise(lines, exists=lambda name: found_recording(name, folders) is not None)
    if layout is None or not {"wav", "id"} & set(layout.roles) or not {"text", "normalised text"} & set(layout.roles):
        return None
    return layout


def _folders(path: Path, folder: Path) -> list[Path]:
    return list(dict.fromkeys((path.parent, folder, path.parent.parent)))


def _list_files(folder: Path) -> Iterator[Path]:
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


def _joined(
    lists: Sequence[tuple[tuple[Item, ...], tuple[Finding, ...]]],
) -> tuple[tuple[Item, ...], tuple[Finding, ...]]:
    """Items of several lists. What an earlier list names, a later one adds no more; a list itself stays as it is."""
    items: list[Item] = []
    named: set[Path] = set()
    for found, _ in lists:
        items += [item for item in found if item.audio_path not in named]
        named |= {item.audio_path for item in found}
    return tuple(items), tuple(finding for _, findings in lists for finding in findings)
