"""What training takes from filelists: usable utterances, and a finding for each line that is left out.

`list_checks` reads a list line by line; `doctor.examine` adds recordings and what lines have in common.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.errors import DataError, format_problems
from corpus.doctor import Examination
from corpus.findings import Finding, counts_by_kind, errors_of
from corpus.list_checks import CheckedList, ListedLine, Places, check_list


@dataclass(frozen=True)
class Utterance:
    """One recording with its text; `utterance_id` is its path below its root, without `wavs/` and extension.

    symbol_ids [T_text]: empty until the texts are read, see `corpus.readings`.
    """

    utterance_id: str
    audio_path: Path
    text: str
    speaker: str | None
    source: Path
    line: int
    symbol_ids: tuple[int, ...] = ()

    @classmethod
    def of(cls, line: ListedLine, source: Path) -> "Utterance":
        return cls(line.utterance_id, line.audio_path, line.text, line.speaker, source, line.number)

    @property
    def where(self) -> str:
        return f"{self.source}:{self.line}"


@dataclass(frozen=True)
class Filelist:
    """What one filelist holds: the good utterances in file order, and why other lines cannot be used."""

    path: Path
    utterances: tuple[Utterance, ...]
    problems: tuple[Finding, ...]


def read_filelist(path: Path, *, dataset_path: Path, data_roots: Sequence[Path] = ()) -> Filelist:
    """The utterances of a filelist and the problems of all its other lines; no recording is opened.

    Raises DataError only where there is no list to speak of: missing, a folder, unreadable.
    """
    checked = check_list(path, Places.of(path, dataset_path=dataset_path, data_roots=data_roots))
    return _filelist(checked, [Utterance.of(line, path) for line in checked.lines], checked.findings)


def usable_filelists(examination: Examination) -> tuple[Filelist, ...]:
    """One list for each that was examined, in the same order, without warnings and notes."""
    return tuple(
        _filelist(
            checked,
            [Utterance.of(e.line, e.source) for e in examination.usable if e.source == checked.path],
            [finding for finding in examination.findings if finding.source == checked.path],
        )
        for checked in examination.lists
    )


def _filelist(checked: CheckedList, utterances: Sequence[Utterance], findings: Sequence[Finding]) -> Filelist:
    return Filelist(checked.path, tuple(utterances), tuple(errors_of(findings)))


def data_error(problems: Sequence[Finding]) -> DataError:
    """One error for all problems of all lists, with counts by kind."""
    return DataError(
        format_problems(
            [problem.message for problem in problems],
            headline=f"{len(problems)} unusable lines in the filelists ({counts_by_kind(problems)}); correct them, or "
            "leave them out by --skip-bad-data:",
        )
    )
