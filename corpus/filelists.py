"""Filelists: one utterance a line, every bad line found at once.

Two formats, told apart by the first column:

    wavs/a_001.flac|text[|speaker]       the first column ends in an audio extension
    a_001|text as written|text to read   as in LJSpeech: the recording is wavs/a_001.<any audio extension>

With `load_mel_from_disk` the first column names `.npy` mels, as `mels/a_001.npy|text` or `a_001|text`.

Encoding is UTF-8, with or without a byte-order mark; lines end in LF or CRLF; empty lines are skipped; there are no
comments ("#" may open a name).

Where a relative path is looked up: in `dataset_path`, then in the filelist's own folder, then in that folder's parent;
the first place that has the file wins. Wherever it was found, the file itself (links followed) must lie inside one of
the allowed roots, which the caller names: see `allowed_roots`.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from common.errors import DataError, format_problems
from text import text_to_sequence, unknown_characters

AUDIO_EXTENSIONS = (".wav", ".flac", ".ogg", ".mp3")
MEL_EXTENSIONS = (".npy",)
MAX_SPEAKER_LENGTH = 64  # a longer "speaker" is a sentence: a third column of text beside audio paths

ProblemKind = Literal[
    "malformed", "encoding", "NUL byte", "empty text", "missing file", "unsafe path", "duplicate",
    "unknown characters", "unreadable audio", "too short", "unusable mel", "speaker",
]  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """Why one line cannot be used; `message` reads `file:line: what; value; what to do`."""

    kind: ProblemKind
    message: str


@dataclass(frozen=True)
class Utterance:
    """One recording with its text; `utterance_id` is its path below its root, without `wavs/` and extension."""

    utterance_id: str
    audio_path: Path
    text: str
    speaker: str | None
    source: Path
    line: int

    @property
    def where(self) -> str:
        return f"{self.source}:{self.line}"


@dataclass(frozen=True)
class Filelist:
    """What one filelist holds: the good utterances in file order, and the lines that cannot be used."""

    path: Path
    utterances: tuple[Utterance, ...]
    problems: tuple[Problem, ...]


class BadLine(Exception):
    """One line cannot be used; never leaves this module."""

    def __init__(self, kind: ProblemKind, detail: str) -> None:
        super().__init__(detail)
        self.kind: ProblemKind = kind


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name too long for the file system, as a sentence in the first column is
        return False


@dataclass(frozen=True)
class Lookup:
    """Where recordings are looked up, and which folders they may really lie in."""

    bases: tuple[Path, ...]
    roots: tuple[Path, ...]
    extensions: tuple[str, ...] = AUDIO_EXTENSIONS
    folder: str = "wavs"  # where a bare id is looked up

    def find(self, column: str) -> Path:
        """The recording that a first column names, links followed; BadLine if it is missing or outside the roots."""
        is_path = Path(column).suffix.lower() in self.extensions
        names = [column] if is_path else [f"{self.folder}/{column}{extension}" for extension in self.extensions]
        for base in self.bases:
            for name in names:
                if _is_file(base / name):
                    return self._inside_roots(base / name)
        shown = column if is_path else f"{self.folder}/{column}{{{','.join(self.extensions)}}}"
        places = ", ".join(str(base) for base in self.bases)
        raise BadLine("missing file", f"no such file; {shown}; looked in {places}: correct the path or dataset_path")

    def _inside_roots(self, path: Path) -> Path:
        resolved = path.resolve()
        if any(resolved.is_relative_to(root) for root in self.roots):
            return resolved
        raise BadLine(
            "unsafe path",
            f"leads outside the data folders ({', '.join(str(root) for root in self.roots)}); {path} -> {resolved}; "
            f'if you trust it, list it: --hparams "data_roots=[{resolved.parent}]" (evaluate.py: --dataset-path)',
        )

    def utterance_id(self, audio_path: Path) -> str:
        root = max((root for root in self.roots if audio_path.is_relative_to(root)), key=lambda root: len(root.parts))
        return audio_path.relative_to(root).with_suffix("").as_posix().removeprefix(f"{self.folder}/")


def allowed_roots(*, dataset_path: Path, data_roots: Sequence[Path]) -> tuple[Path, ...]:
    """The folders that recordings may lie in, links followed: `dataset_path` and the listed `data_roots`, no others."""
    return tuple(dict.fromkeys(root.resolve() for root in (dataset_path, *data_roots)))


def read_filelist(
    path: Path,
    *,
    dataset_path: Path,
    data_roots: Sequence[Path] = (),
    cleaner_names: Sequence[str] = ("english_cleaners",),
    names_mels: bool = False,
) -> Filelist:
    """The utterances of a filelist and the problems of all its other lines.

    Raises DataError only where there is no list to speak of: missing, a folder, unreadable, or UTF-16.
    """
    own_folder = path.absolute().parent
    lookup = Lookup(
        bases=tuple(dict.fromkeys(base.absolute() for base in (dataset_path, own_folder, own_folder.parent))),
        roots=allowed_roots(dataset_path=dataset_path, data_roots=data_roots),
        extensions=MEL_EXTENSIONS if names_mels else AUDIO_EXTENSIONS,
        folder="mels" if names_mels else "wavs",
    )
    utterances: list[Utterance] = []
    problems: list[Problem] = []
    lines_by_path: dict[Path, int] = {}
    for line, raw in _raw_lines(path):
        try:
            utterance = _read_line(raw, path=path, line=line, lookup=lookup)
            first = lines_by_path.setdefault(utterance.audio_path, line)
            if first != line:
                raise BadLine("duplicate", f"same recording as line {first}; {utterance.utterance_id}; delete one")
            check_text(utterance.text, cleaner_names)
        except BadLine as bad:
            problems.append(Problem(bad.kind, f"{path}:{line}: {bad}"))
        else:
            utterances.append(utterance)
    return Filelist(path, tuple(utterances), tuple(problems))


def _raw_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Line numbers from 1 and the bytes of each line that is not blank."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot read the filelist; {error.strerror}; correct the path") from error
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path}: the filelist is UTF-16; save it as UTF-8")
    # Split at LF only: text may hold U+2028 and other characters that str.splitlines breaks at.
    for line, raw in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if raw.strip():
            yield line, raw.removesuffix(b"\r")


def _read_line(raw: bytes, *, path: Path, line: int, lookup: Lookup) -> Utterance:
    if b"\0" in raw:
        raise BadLine("NUL byte", f"holds a NUL byte at column {raw.index(0) + 1}; {raw[:40]!r}; delete it")
    try:
        decoded = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadLine(
            "encoding", f"is not UTF-8 at byte {error.start + 1}; {raw[error.start : error.end]!r}; save as UTF-8"
        ) from error
    column, text, speaker = _columns(decoded, lookup.extensions)
    audio_path = lookup.find(column)
    return Utterance(lookup.utterance_id(audio_path), audio_path, text, speaker, path, line)


def _columns(decoded: str, extensions: Sequence[str]) -> tuple[str, str, str | None]:
    """First column, text to read, speaker (None where the line names none)."""
    columns = [column.strip() for column in decoded.split("|")]
    if len(columns) not in (2, 3) or not columns[0]:
        raise BadLine("malformed", f'{len(columns)} columns; "{decoded[:60]}"; write wav|text, wav|text|speaker or '
                                   "id|text|normalised text")  # fmt: skip
    suffix = Path(columns[0]).suffix.lower()
    if suffix in {*AUDIO_EXTENSIONS, *MEL_EXTENSIONS} - {*extensions}:
        raise BadLine("malformed", f"{columns[0]} where {', '.join(extensions)} belongs; correct the path, or set "
                                   f"load_mel_from_disk={suffix in MEL_EXTENSIONS}")  # fmt: skip
    names_file = suffix in extensions
    third = columns[2] if len(columns) == 3 else None
    text = third if third is not None and not names_file else columns[1]
    if not text:
        raise BadLine("empty text", f"nothing to read; {columns[0]}; write the text or delete the line")
    speaker = third if names_file and third else None
    if speaker is not None and (speaker == text or len(speaker) > MAX_SPEAKER_LENGTH):
        raise BadLine("malformed", f'a sentence where a speaker belongs; "{speaker[:60]}"; write wav|text|speaker')
    return columns[0], text, speaker


def check_text(text: str, cleaner_names: Sequence[str]) -> None:
    """BadLine if the cleaned text holds characters that the symbol set lacks, or nothing to read."""
    unknown = unknown_characters(text, cleaner_names)
    if unknown:
        raise BadLine(
            "unknown characters",
            f'the symbol set lacks {shown_characters(unknown)}; "{text[:60]}"; correct the text or choose '
            f"other text_cleaners than {list(cleaner_names)}",
        )
    try:
        ids = text_to_sequence(text, cleaner_names)
    except DataError as error:  # phonemes in braces
        raise BadLine("unknown characters", " ".join(str(error).split())) from error
    if not ids:
        raise BadLine("empty text", f'nothing to read after {list(cleaner_names)}; "{text[:60]}"; correct the text')


def shown_characters(counts: Counter[str]) -> str:
    """Characters with their code points and counts, the most frequent first."""
    return ", ".join(f"{character!r} (U+{ord(character):04X}) x{n}" for character, n in counts.most_common())


def counts_by_kind(problems: Iterable[Problem]) -> str:
    """Such as `3 missing file, 1 duplicate`: the most frequent kind first."""
    return ", ".join(f"{n} {kind}" for kind, n in Counter(problem.kind for problem in problems).most_common())


def data_error(problems: Sequence[Problem]) -> DataError:
    """One error for all problems of all lists, with counts by kind."""
    return DataError(
        format_problems(
            [problem.message for problem in problems],
            headline=f"{len(problems)} unusable lines in the filelists ({counts_by_kind(problems)}); correct them, or "
            "pass --skip-bad-data to train without them:",
        )
    )
