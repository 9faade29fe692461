"""A list as ours, out of one in another encoding, layout or spelling: the same lines under the same numbers."""

from dataclasses import dataclass
from pathlib import Path

from corpus.layouts import OURS, Layout, recognise, split_row
from corpus.list_checks import COMMENT_MARKS, Places
from corpus.list_text import decoded_lines
from corpus.near_files import FileFinder
from corpus.text_fixes import corrected_text


@dataclass(frozen=True)
class Change:
    """What was changed in a line (0: in all), in words."""

    line: int
    what: str


@dataclass(frozen=True)
class FixedList:
    """content: UTF-8 with Unix line ends, the k-th line out of the k-th; lines that were no entries are blank."""

    content: bytes
    changes: tuple[Change, ...]


def fixed_list(path: Path, places: Places) -> FixedList:
    """What can be corrected without looking at a recording; what can't stays as it is, for the checks to name.

    OSError if the list can't be read.
    """
    lines, changes = decoded_lines(path.read_bytes())
    entries = [text for _, text in lines if not text.lstrip().startswith(COMMENT_MARKS)]
    layout = recognise(entries, exists=lambda name: places.find(name) is not None)
    finder = FileFinder(places.bases)
    found = [Change(0, what) for what in changes]
    if layout is not None and not layout.is_ours:
        found.append(Change(0, f"{layout.name}, {layout.columns}, written as wav|text"))
    rows = [""] * max((number for number, _ in lines), default=0)
    for i, (number, text) in enumerate(lines):
        rows[number - 1] = _fixed_line(text, i, layout, places, finder)
        if rows[number - 1] != text and (layout is None or layout.is_ours):
            found.append(Change(number, "corrected" if rows[number - 1] else "left out, no entry"))
    return FixedList(("\n".join(rows) + "\n").encode("utf-8"), tuple(found))


def _fixed_line(text: str, i: int, layout: Layout | None, places: Places, finder: FileFinder) -> str:
    is_comment = text.lstrip().startswith(COMMENT_MARKS) and places.find(text.split("|")[0].strip()) is None
    if layout is None:
        return text
    if is_comment or i < layout.header_lines:
        return ""
    cells = split_row(text, layout.separator) if layout.separator != "json" else []
    if layout.separator == "|" and layout.roles in OURS:
        if not 2 <= len(cells) <= 3:
            return text
        return "|".join((_found(cells[0], places, finder), *map(corrected_text, cells[1:])))
    if len(cells) != len(layout.roles):
        return text
    by_role = dict(zip(reversed(layout.roles), reversed(cells), strict=True))
    name = by_role.get("wav") or by_role.get("id") or ""
    said = corrected_text(by_role.get("normalised text") or by_role.get("text") or "")
    speaker = by_role.get("speaker") or ""
    return "|".join(filter(None, (_found(name, places, finder), said.replace("|", " "), speaker)))


def _found(name: str, places: Places, finder: FileFinder) -> str:
    """The name as it is, or the path of the file that is meant."""
    if places.find(name) is not None:
        return name
    near = finder.near(name)
    return name if near is None else str(near.path)
