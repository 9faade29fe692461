"""Which columns a list has: told from what stands in them, and refused by name where it is not ours.

Ours are `wav|text`, `wav|text|speaker`, `id|text`, `id|text|normalised text` (LJSpeech). Lists of other programs put
the same things elsewhere, and would train without a word if read as ours: VITS writes `wav|speaker|text`. What
counts as evidence: which column names existing recordings, where sentences stand, where few values repeat.
"""

import csv
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from corpus.findings import Finding, error, shown
from corpus.near_files import SOUND_EXTENSIONS

Role = Literal["wav", "id", "text", "normalised text", "speaker", "language", "other"]
Separator = Literal["|", "\t", ",", ";", " ", "json"]

SAMPLED_LINES = 1000  # evenly spread; enough to see what a column is
SAMPLED_LENGTH = 4000  # characters of a line; a whole book in one of them says no more
MOST = 0.8  # of the lines
HALF = 0.5  # of the lines with a bar: it is our list, and the others lack theirs
AGREEING = 0.3  # of the words of a text and its normalised form; of a text and a name none
MAX_SPEAKER_LENGTH = 64
SEPARATOR_NAMES: dict[Separator, str] = {"\t": "tabs", ",": "commas", ";": "semicolons"}
OURS: tuple[tuple[Role, ...], ...] = (
    ("wav", "text"),
    ("wav", "text", "speaker"),
    ("id", "text"),
    ("id", "text", "normalised text"),
)
# what others call their columns, in lower case
_NAMED: dict[Role, str] = {
    "wav": "wav file path audio audio_file audio_path audio_filepath filename file_name wav_path wav_file clip "
    "recording file_path filepath",
    "id": "id utt utt_id utterance utterance_id key wav_id name",
    "text": "text sentence transcript transcription raw_text prompt utterance_text",
    "normalised text": "normalized_text normalised_text normalized normalised normalized_transcription text_normalized "
    "clean_text",
    "speaker": "speaker speaker_id speaker_name spk client_id reader voice",
    "language": "language lang locale language_name",
}
HEADINGS: dict[str, Role] = {word: role for role, words in _NAMED.items() for word in words.split()}
KNOWN_BY: dict[tuple[Role, ...], str] = {
    ("wav", "speaker", "text"): "VITS's list",
    ("wav", "speaker", "language", "text"): "a multilingual VITS list",
    ("wav", "text", "normalised text"): "LJSpeech's columns with paths for ids",
    ("id", "speaker", "text"): "Piper's list of several speakers",
    ("wav", "text", "speaker", "language"): "a list of several languages",
}


@dataclass(frozen=True)
class Layout:
    """Columns of a list. header_lines: at its top that name columns. why: what it was told by, in words."""

    roles: tuple[Role, ...]
    separator: Separator
    header_lines: int = 0
    why: str = ""
    name: str = ""

    @property
    def is_ours(self) -> bool:
        """Whether training reads it as it stands."""
        return self.separator == "|" and not self.header_lines and self.roles in OURS

    @property
    def is_ours_with_header(self) -> bool:
        """Whether only its first line is too much."""
        return self.separator == "|" and self.header_lines > 0 and self.roles in OURS

    @property
    def columns(self) -> str:
        """Such as `wav|text|speaker`."""
        return ("|" if self.separator == "json" else self.separator.replace("\t", "<tab>")).join(self.roles)


@dataclass(frozen=True)
class Column:
    """What stands in one column: shares of the lines, and how many different values."""

    sounds: float  # end in the extension of a recording
    existing: float  # name a recording that is there
    sentences: float  # several words with letters
    numbers: float
    decimals: float  # such as 1.25: durations and scores, and no names
    empty: float
    different: int
    length: float  # characters, on average
    lines: int


def recognise(lines: Sequence[str], *, exists: Callable[[str], bool] | None = None) -> Layout | None:
    """The layout of a list's decoded lines; None where nothing makes sense of them.

    exists(column) tells whether a first column names a recording, as a path or as an id.
    """
    lines = [line[:SAMPLED_LENGTH] for line in _sample([line for line in lines if line.strip()])]
    if not lines:
        return None
    if lines[0].lstrip().startswith("{"):
        return _of_json(lines)
    separator = _separator(lines)
    if separator is None:
        return None
    rows = [_columns_of(line, separator) for line in lines]
    header = _header(split_row(lines[0], separator), exists)
    if header is not None:
        named = ", ".join(cell for cell in rows[0] if cell)
        return _named(Layout(header, separator, 1, f"its first line names the columns: {shown(named)}"))
    widths = Counter(len(row) for row in rows if len(row) > 1) or Counter(map(len, rows))
    width = widths.most_common(1)[0][0]
    cells = list(zip(*(row for row in rows if len(row) == width), strict=True))
    roles, why = _roles([_column(column, exists) for column in cells], cells)
    return None if roles is None else _named(Layout(roles, separator, 0, why))


def refusal(layout: Layout | None) -> Finding | None:
    """Why training can't read a list of this layout, and what to do; None for ours."""
    if layout is None:
        return error(
            "layout",
            "no line looks like wav|text: no column names recordings, or none holds text",
            "write wav|text or wav|text|speaker",
        )
    if layout.is_ours or layout.is_ours_with_header:
        return None
    if layout.roles in OURS and layout.separator in SEPARATOR_NAMES:
        name = SEPARATOR_NAMES[layout.separator]
        return error(
            "separator",
            f"has {name} where bars (|) belong ({layout.why})",
            f"write {'|'.join(layout.roles)}, or run python prepare_data.py import FOLDER -o OUT",
        )
    wanted = "wav|text|speaker" if "speaker" in layout.roles else "wav|text"
    return error(
        "layout",
        f"looks like {layout.name}, {layout.columns} ({layout.why}), and not like {wanted}",
        f"write {wanted}, or run python prepare_data.py import FOLDER -o OUT",
    )


def split_row(line: str, separator: Separator) -> list[str]:
    """The cells of one line, without the spaces around them."""
    if separator in (",", ";"):
        return [cell.strip() for cell in next(csv.reader([line], delimiter=separator))]
    if separator == " ":
        first, _, rest = line.strip().partition(" ")
        return [first, rest.strip()]
    return [cell.strip() for cell in line.split(separator)]


def joined_text(line: str, layout: Layout) -> list[str] | None:
    """The cells of a line with more than the layout has, where these can only be a text that holds the separator.

    So if the text is the last column, and nothing is in quotes, as csv would have it. None where it can't be told.
    """
    n = len(layout.roles)
    if layout.separator not in (",", ";") or layout.roles[-1] not in ("text", "normalised text") or '"' in line:
        return None
    return [cell.strip() for cell in line.split(layout.separator, n - 1)]


# ---- separators and headers


def _columns_of(line: str, separator: Separator) -> list[str]:
    """As `split_row`; but a comma with a space behind it, as in a sentence, is none between columns."""
    first, _, rest = line.partition(separator)
    if separator not in (",", ";") or '"' in line or rest.startswith(" "):
        return split_row(line, separator)
    return [first.strip(), *(cell.strip() for cell in re.split(f"{separator}(?! )", rest))]


def _sample(lines: Sequence[str]) -> list[str]:
    step = max(1, len(lines) // SAMPLED_LINES)
    return list(lines[::step])


def _separator(lines: Sequence[str]) -> Separator | None:
    plain: tuple[Separator, ...] = ("|", "\t")
    for separator in plain:
        if _share(separator in line for line in lines) >= MOST:
            return separator
    of_tables: tuple[Separator, ...] = (",", ";")
    for separator in of_tables:
        if _share(separator in line and _is_name(line.partition(separator)[0]) for line in lines) >= MOST:
            return separator
    if _share("|" not in line and _is_kaldi(line.split(maxsplit=1)) for line in lines) >= MOST:
        return " "
    return "|" if _share("|" in line for line in lines) >= HALF else None


def _is_kaldi(words: Sequence[str]) -> bool:
    """Whether a line, cut at its first space, begins with an id as in Kaldi's `text`."""
    return len(words) == 2 and re.search(r"\d|[_/-]", words[0]) is not None


def _is_name(cell: str) -> bool:
    """Whether a cell looks like the path or the id of a recording: one word with a digit, a slash or an extension."""
    cell = cell.strip(" \"'")
    return (
        bool(cell)
        and (_is_sound(cell) or (" " not in cell and re.search(r"\d|[_/\\]", cell) is not None))
        or (cell.lower() in HEADINGS)
    )


def _header(cells: Sequence[str], exists: Callable[[str], bool] | None) -> tuple[Role, ...] | None:
    """Roles by the names in a first line, if it is a line of names."""
    roles: list[Role] = [HEADINGS.get(cell.lower().strip("\"' "), "other") for cell in cells]
    n_known = sum(role != "other" for role in roles)
    is_header = n_known >= 2 and ("wav" in roles or "id" in roles) and ("text" in roles or "normalised text" in roles)
    if not is_header or (exists is not None and exists(cells[0])) or any(_is_sound(cell) for cell in cells):
        return None
    return tuple(roles)


def _of_json(lines: Sequence[str]) -> Layout | None:
    try:
        keys = list(json.loads(lines[0]))
    except ValueError:
        return None
    roles: tuple[Role, ...] = tuple(HEADINGS.get(key.lower(), "other") for key in keys)
    why = f"its lines are JSON objects with {shown(', '.join(keys))}"
    return Layout(roles, "json", 0, why, "a manifest in JSON") if "wav" in roles and "text" in roles else None


# ---- columns


def _column(cells: Sequence[str], exists: Callable[[str], bool] | None) -> Column:
    return Column(
        sounds=_share(_is_sound(cell) for cell in cells),
        existing=_share(exists(cell) for cell in cells) if exists is not None else 0.0,
        sentences=_share(_is_sentence(cell) for cell in cells),
        numbers=_share(cell.isdigit() for cell in cells),
        decimals=_share(re.fullmatch(r"-?\d*[.]\d+", cell) is not None for cell in cells),
        empty=_share(not cell for cell in cells),
        different=len(set(cells)),
        length=sum(map(len, cells)) / len(cells),
        lines=len(cells),
    )


def _share(flags: Iterable[bool]) -> float:
    listed = list(flags)
    return sum(listed) / len(listed) if listed else 0.0


def _is_sound(cell: str) -> bool:
    return PurePosixPath(cell.strip("\"' ")).suffix.lower() in SOUND_EXTENSIONS


def _is_sentence(cell: str) -> bool:
    """Several words, one that ends as sentences do, or a run of a script without spaces."""
    if _is_sound(cell) or not any(char.isalpha() for char in cell):
        return False
    is_unspaced = len(cell) > 3 and all(unicodedata.category(char) == "Lo" for char in cell[:4])
    return len(cell.split()) > 1 or cell[-1] in ".!?\u3002\uff01\uff1f" or is_unspaced


def _agree(cells: Sequence[str], others: Sequence[str]) -> float:
    """How many of the words of two columns are the same, 0 to 1: a text and its normalised form share most."""
    shared = total = 0
    for cell, other in zip(cells, others, strict=True):
        a, b = (set(re.findall(r"\w+", text.lower())) for text in (cell, other))
        shared, total = shared + len(a & b), total + len(a | b)
    return shared / total if total else 0.0


def _roles(columns: Sequence[Column], cells: Sequence[Sequence[str]]) -> tuple[tuple[Role, ...] | None, str]:
    """Roles of columns without a header, and why; None where the first names nothing or no other holds text."""
    if len(columns) < 2:
        return None, ""
    names = max(range(len(columns)), key=lambda i: (columns[i].sounds + columns[i].existing, -i))
    if columns[names].sounds + columns[names].existing < MOST / 2:  # ids of recordings that are not found
        names = 0
        if columns[0].sentences >= MOST / 2:
            return None, ""
    text = _text_column(columns, [i for i in range(len(columns)) if i != names])
    if text is None:
        return None, ""
    roles: list[Role] = ["other"] * len(columns)
    roles[names] = "wav" if columns[names].sounds >= MOST / 2 else "id"
    roles[text] = "text"
    for i in range(len(columns)):
        if i not in (names, text):
            roles[i] = _other_role(columns[i], roles, agrees=_agree(cells[i], cells[text]) > AGREEING)
    if roles == ["id", "speaker", "text"] and 2 * columns[1].different > columns[1].lines:
        roles = ["id", "text", "normalised text"]  # names of speakers repeat: this is LJSpeech's abbreviated text
    return tuple(roles), _why(columns, roles)


def _text_column(columns: Sequence[Column], rest: Sequence[int]) -> int | None:
    """Where the text is: the first of the columns with most sentences; of single words, the one that differs most."""
    filled = [i for i in rest if columns[i].empty < 1]
    if not filled:
        return None
    # names of speakers repeat, and texts hardly do
    varied = [i for i in filled if 2 * columns[i].different >= max(columns[k].different for k in filled)]
    most = max(columns[i].sentences for i in varied)
    if most >= MOST / 2:
        return next(i for i in varied if columns[i].sentences >= most - 0.2)
    if any(columns[i].sentences >= MOST for i in filled):  # one sentence, said many times
        return next(i for i in filled if columns[i].sentences >= MOST)
    return varied[0]


def _other_role(column: Column, roles: Sequence[Role], *, agrees: bool) -> Role:
    if agrees and "normalised text" not in roles:
        return "normalised text"
    is_name = column.empty < 1 and column.length < MAX_SPEAKER_LENGTH and column.decimals < MOST
    if is_name and "speaker" not in roles:
        return "speaker"
    return "language" if is_name and column.length <= 6 and column.different <= 20 else "other"


def _why(columns: Sequence[Column], roles: Sequence[Role]) -> str:
    """The evidence in words."""
    said = []
    for i, (column, role) in enumerate(zip(columns, roles, strict=True), start=1):
        if role in ("wav", "id"):
            there = f"{100 * column.existing:.0f} % of column {i} name recordings that are there"
            looks = f"column {i} {'ends in the extension' if role == 'wav' else 'looks like the ids'} of recordings"
            said.append(there if column.existing else looks)
        elif role == "text":
            said.append(f"sentences in column {i}" if column.sentences else f"different words in column {i}")
        elif role in ("speaker", "language"):
            said.append(f"column {i} has {column.different} different values in {column.lines} lines")
        elif role == "normalised text":
            said.append(f"sentences in column {i} too")
    return ", ".join(said)


def _named(layout: Layout) -> Layout:
    roles, separator = layout.roles, layout.separator
    if layout.header_lines:
        kinds = {"|": "a list with a header", "\t": "a table with tabs and a header"}
        is_common_voice = "speaker" in roles and separator == "\t"
        name = "Common Voice's table" if is_common_voice else kinds.get(separator, "a csv table with a header")
    elif separator == "|":
        known = {ours: f"our {'|'.join(ours)}" for ours in OURS} | KNOWN_BY
        name = known.get(roles, "another program's list")
    else:
        name = f"a list with {SEPARATOR_NAMES[separator]} for bars" if separator != " " else "Kaldi's text file"
    return Layout(roles, separator, layout.header_lines, layout.why, name)
