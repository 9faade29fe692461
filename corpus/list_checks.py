"""A filelist line by line: what it names, what it says, and everything that is wrong with it but the sound.

    wavs/a_001.flac|text[|speaker]       the first column ends in an audio extension
    a_001|text as written|text to read   as in LJSpeech: the recording is wavs/a_001.<any audio extension>

Where a relative path is looked up: in `dataset_path`, then in the list's own folder, then in that folder's parent; the
first place that has the file wins. The file itself, links followed, must lie inside one of the allowed roots.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.errors import DataError
from corpus.findings import Finding, error, note, shown, warning
from corpus.layouts import MAX_SPEAKER_LENGTH, Layout, recognise, refusal
from corpus.list_text import ListText, list_text, read_list_text
from corpus.near_files import FileFinder, list_that_is_there, missing_file
from corpus.text_checks import check_text
from corpus.text_shares import check_shares
from corpus.unspoken_text import names_itself

AUDIO_EXTENSIONS = (".wav", ".flac", ".ogg", ".opus", ".mp3")
MEL_EXTENSIONS = (".npy",)
COMMENT_MARKS = ("#", "//", "--", "%")


@dataclass(frozen=True)
class ListedLine:
    """One usable line: recording (links followed), text to read, speaker or None; utterance_id is its path below its
    root, without `wavs/` and extension."""

    number: int
    utterance_id: str
    audio_path: Path
    text: str
    speaker: str | None


@dataclass(frozen=True)
class CheckedList:
    """The usable lines of a list in order, all that was found, and its layout (None where none was recognised)."""

    path: Path
    lines: tuple[ListedLine, ...]
    findings: tuple[Finding, ...]
    layout: Layout | None


@dataclass(frozen=True)
class Places:
    """Where recordings are looked up, which folders they may really lie in, and what they are called."""

    bases: tuple[Path, ...]
    roots: tuple[Path, ...]
    extensions: tuple[str, ...] = AUDIO_EXTENSIONS
    folder: str = "wavs"  # where a bare id is looked up

    @classmethod
    def of(
        cls, path: Path, *, dataset_path: Path, data_roots: Sequence[Path] = (), names_mels: bool = False
    ) -> "Places":
        """For the list at `path`: its dataset folder, its own and the one above."""
        own = path.absolute().parent
        return cls(
            bases=tuple(dict.fromkeys(base.absolute() for base in (dataset_path, own, own.parent))),
            roots=tuple(dict.fromkeys(root.resolve() for root in (dataset_path, *data_roots))),
            extensions=MEL_EXTENSIONS if names_mels else AUDIO_EXTENSIONS,
            folder="mels" if names_mels else "wavs",
        )

    def names_file(self, column: str) -> bool:
        """Whether a first column is a path and not an id."""
        return Path(column).suffix.lower() in self.extensions

    def find(self, column: str) -> Path | None:
        """The first file that a first column names; None if there is none."""
        names = [column] if self.names_file(column) else [f"{self.folder}/{column}{e}" for e in self.extensions]
        found = (base / name for base in self.bases for name in names if _is_file(base / name))
        return next(found, None)

    def is_inside(self, path: Path) -> bool:
        return any(path.is_relative_to(root) for root in self.roots)

    def utterance_id(self, path: Path) -> str:
        """Of a path that is inside."""
        root = max((root for root in self.roots if path.is_relative_to(root)), key=lambda root: len(root.parts))
        return path.relative_to(root).with_suffix("").as_posix().removeprefix(f"{self.folder}/")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long for the file system, as a sentence is; a NUL in it
        return False


def check_list(path: Path, places: Places, *, content: bytes | None = None) -> CheckedList:
    """Everything that can be said of a list without opening a recording.

    content: to be taken for what stands in the file. Raises DataError where there is no list to read: missing, a
    folder, not allowed.
    """
    try:
        text = read_list_text(path) if content is None else list_text(path, content)
    except OSError as caught:
        reason = caught.strerror if path.is_dir() else f"{caught.strerror}{list_that_is_there(path)}"
        raise DataError(f"{path}: cannot read the filelist; {reason}; correct the path") from caught
    if not text.lines:
        return CheckedList(path, (), text.findings, None)
    decoded = [line.text for line in text.lines if line.text is not None]
    layout = recognise(_without_comments(decoded), exists=lambda column: places.find(column) is not None)
    refused = refusal(layout)
    if refused is not None:
        return CheckedList(path, (), (*text.findings, refused.at(path)), layout)
    lines, findings = _read_lines(text, places, has_header=layout is not None and layout.header_lines > 0)
    together = _compared_within(lines)
    return CheckedList(path, tuple(lines), (*text.findings, *findings, *(f.at(path, n) for n, f in together)), layout)


def _without_comments(lines: Sequence[str]) -> list[str]:
    return [line for line in lines if not line.lstrip().startswith(COMMENT_MARKS)] or list(lines)


def _read_lines(content: ListText, places: Places, *, has_header: bool) -> tuple[list[ListedLine], list[Finding]]:
    finder = FileFinder(places.bases)
    lines: list[ListedLine] = []
    findings: list[Finding] = []
    first_lines: dict[Path, int] = {}
    for i, line in enumerate(content.lines):
        if line.text is None:
            continue
        if i == 0 and has_header:
            found: list[Finding] = [error("header line", f'names columns: "{shown(line.text)}"', "delete it")]
            listed = None
        else:
            listed, found = _read_line(line.number, line.text, places, finder)
        if listed is not None:
            first = first_lines.setdefault(listed.audio_path, line.number)
            if first != line.number:
                found.append(error("duplicate", f"same recording as line {first}: {listed.utterance_id}", "delete one"))
        findings += [finding.at(content.path, line.number) for finding in found]
        if listed is not None and not any(finding.severity == "error" for finding in found):
            lines.append(listed)
    return lines, findings


def _read_line(
    number: int, decoded: str, places: Places, finder: FileFinder
) -> tuple[ListedLine | None, list[Finding]]:
    """The line, None where it has no recording or no text; and what is wrong with it."""
    cells = [cell.strip() for cell in decoded.split("|")]
    wrong = _wrong_columns(cells, decoded, places)
    if wrong is not None:
        return None, [wrong]
    names_file = places.names_file(cells[0])
    third = cells[2] if len(cells) == 3 else ""
    text = third if len(cells) == 3 and not names_file else cells[1]
    speaker = third if names_file and third else None
    found = [*_wrong_speaker(speaker, text)]
    path = places.find(cells[0])
    if path is None:
        found.append(missing_file(cells[0], finder, places=places.bases))
    elif not places.is_inside(resolved := path.resolve()):
        found.append(_outside(path, resolved, places))
    if not text:
        found.append(error("empty text", f"nothing to read: {cells[0]}", "write the text or delete the line"))
    else:
        own_name = names_itself(text, Path(cells[0]).stem)
        found += [own_name] if own_name else check_text(text)
    if path is None or not text or not places.is_inside(path.resolve()):
        return None, found
    resolved = path.resolve()
    return ListedLine(number, places.utterance_id(resolved), resolved, text, speaker), found


def _wrong_columns(cells: Sequence[str], decoded: str, places: Places) -> Finding | None:
    known = {*AUDIO_EXTENSIONS, *MEL_EXTENSIONS} - {*places.extensions}
    if decoded.lstrip().startswith(COMMENT_MARKS) and (len(cells) < 2 or places.find(cells[0]) is None):
        return error("comment line", f'a comment: "{shown(decoded)}"', "delete it: lists have no comments")
    if len(cells) == 1:
        other = next(
            (name for char, name in (("\t", "tabs"), (";", "semicolons"), (",", "commas")) if char in decoded), ""
        )
        hint = f"; it has {other} where bars belong" if other else ""
        return error("columns", f'one column{hint}: "{shown(decoded)}"', "write wav|text")
    if len(cells) > 3:
        return error(
            "columns",
            f'{len(cells)} columns: "{shown(decoded)}"',
            "write wav|text or wav|text|speaker; a text can't hold a bar",
        )
    if not cells[0]:
        return error("columns", f'names no recording: "{shown(decoded)}"', "write wav|text")
    suffix = Path(cells[0]).suffix.lower()
    if suffix in known:
        return error(
            "columns",
            f"{shown(cells[0])} where {', '.join(places.extensions)} belongs",
            f"correct the path, or set load_mel_from_disk={suffix in MEL_EXTENSIONS}",
        )
    return None


def _wrong_speaker(speaker: str | None, text: str) -> Iterator[Finding]:
    if speaker is not None and (speaker == text or len(speaker) > MAX_SPEAKER_LENGTH):
        yield error("speaker", f'a sentence where a speaker belongs: "{shown(speaker)}"', "write wav|text|speaker")
    elif speaker is not None and not speaker.isprintable():
        yield error("speaker", f'the speaker "{shown(speaker)}" holds characters that nobody sees', "delete them")


def _outside(path: Path, resolved: Path, places: Places) -> Finding:
    return error(
        "unsafe path",
        f"leads outside the data folders ({', '.join(map(str, places.roots))}): {path} -> {resolved}",
        "name the folder that holds all recordings as dataset_path (--dataset-path in prepare_data.py, evaluate.py); "
        f"or, if you trust it, list {resolved.parent} as --data-root of prepare_data.py, and to train with "
        f'--hparams "data_roots=[{resolved.parent}]"',
    )


# ---- lines compared with each other


def _compared_within(lines: Sequence[ListedLine]) -> list[tuple[int, Finding]]:
    return [*_same_ids(lines), *_repeated_texts(lines), *_odd_speakers(lines), *check_shares(lines, key=text_key)]


def _same_ids(lines: Sequence[ListedLine]) -> Iterator[tuple[int, Finding]]:
    first: dict[str, ListedLine] = {}
    for line in lines:
        other = first.setdefault(line.utterance_id.casefold(), line)
        if other is not line:
            yield (
                line.number,
                warning(
                    "same id",
                    f"same id as line {other.number}: {line.audio_path.name} and {other.audio_path.name}",
                    "is it the same recording twice?",
                ),
            )


def _repeated_texts(lines: Sequence[ListedLine]) -> Iterator[tuple[int, Finding]]:
    """A sentence read twice is legal, and often the sign of a list that was joined from two."""
    first: dict[tuple[str, str | None], int] = {}
    for line in lines:
        number = first.setdefault((text_key(line.text), line.speaker), line.number)
        if number != line.number:
            yield (
                line.number,
                note(
                    "repeated text",
                    f'same text as line {number}: "{shown(line.text)}"',
                    "keep both if it was read twice",
                ),
            )


def text_key(text: str) -> str:
    """What makes two texts the same to a listener: letters and digits, without case."""
    return " ".join("".join(char if char.isalnum() else " " for char in text.casefold()).split())


def _odd_speakers(lines: Sequence[ListedLine]) -> Iterator[tuple[int, Finding]]:
    spoken = Counter(line.speaker for line in lines if line.speaker is not None)
    if len(spoken) > 3 and len(spoken) == sum(spoken.values()):
        yield (
            0,
            warning(
                "speaker",
                f"names {len(spoken)} speakers in {len(spoken)} lines",
                "write wav|text|speaker, with the same name for the same person",
            ),
        )
    spellings: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for name, n in spoken.items():
        spellings["".join(name.casefold().split())][name] = n
    for same in spellings.values():
        rare = {name for name, _ in same.most_common()[1:]}
        usual = same.most_common(1)[0][0]
        for line in lines:
            if line.speaker in rare:
                yield (
                    line.number,
                    warning(
                        "speaker",
                        f'the speaker "{line.speaker}" is written "{usual}" in {same[usual]} lines',
                        "write one name for one person",
                    ),
                )
