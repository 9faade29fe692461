"""A cleaned copy of a corpus: corrected lists and recordings in a folder of their own; originals stay as they are."""

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from common.files import atomic_file, write_atomic
from corpus.doctor import Examination, Examined
from corpus.findings import Finding
from corpus.list_checks import CheckedList
from corpus.list_writing import Entry, write_list
from corpus.recording_checks import Wanted, check_recording
from corpus.recording_files import read_recording
from corpus.recording_fixes import fixed_recording
from corpus.recording_measures import measure

# errors of a recording that mending may take away; those of others leave the line out
MENDABLE = frozenset({"integer scale", "channels cancel"})
LEFT_OUT = "left_out.txt"
CHANGES = "changes.txt"

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Mended:
    """What became of one line: entry None where it is left out, and why or what was changed, in words."""

    examined: Examined
    entry: Entry | None
    words: tuple[str, ...]


@dataclass(frozen=True)
class FixedCorpus:
    """Lines written and left out of each list, in order."""

    mended: tuple[Mended, ...]
    lists: tuple[Path, ...]

    @property
    def n_written(self) -> int:
        return sum(mended.entry is not None for mended in self.mended)


def reasons_to_leave_out(examined: Examined, unwanted: Collection[str]) -> list[Finding]:
    """Findings that mending can't take away, as far as is known before it is tried, and those of unwanted kinds."""
    return [
        finding
        for finding in examined.findings
        if finding.kind in unwanted or (finding.severity == "error" and finding.kind not in MENDABLE)
    ]


def mend(
    examination: Examination,
    out: Path,
    *,
    wanted: Wanted,
    unwanted: Collection[str] = (),
    changes: Sequence[str] = (),
    progress: Progress | None = None,
) -> FixedCorpus:
    """Writes out/wavs, one list a list, and what was changed and left out with its reasons.

    examination: of the corrected lists. unwanted: kinds of findings whose lines are left out, warnings too. OSError if
    the disk refuses.
    """
    mended: list[Mended] = []
    names = _file_names(examination.lines)
    with ThreadPoolExecutor() as pool:
        for one in pool.map(lambda e: _mended(e, out, names[e.line.audio_path], wanted, unwanted), examination.lines):
            mended.append(one)
            if progress is not None:
                progress(len(mended), len(examination.lines))
    lists = tuple(_write_list(checked, mended, out) for checked in examination.lists)
    _write_words(out, mended, examination.lists, changes)
    return FixedCorpus(tuple(mended), lists)


def _file_names(lines: Sequence[Examined]) -> dict[Path, str]:
    """For each recording a file name of its own."""
    names: dict[Path, str] = {}
    taken: set[str] = set()
    for examined in lines:
        if examined.line.audio_path in names:
            continue
        name = examined.line.utterance_id.replace("/", "_")
        while name.casefold() in taken:  # some file systems know no case
            name += "_"
        taken.add(name.casefold())
        names[examined.line.audio_path] = f"wavs/{name}.flac"
    return names


def _mended(examined: Examined, out: Path, name: str, wanted: Wanted, unwanted: Collection[str]) -> Mended:
    reasons = reasons_to_leave_out(examined, unwanted)
    if reasons:
        return Mended(examined, None, tuple(finding.detail for finding in reasons))
    recording = read_recording(examined.line.audio_path)
    fixed = fixed_recording(recording.samples, recording.sampling_rate, target_rate=wanted.sampling_rate)
    remaining = [f for f in check_recording(measure(fixed.wav[None], wanted.sampling_rate), wanted) if _is_error(f)]
    if remaining:
        return Mended(examined, None, tuple(f.detail for f in remaining))
    with atomic_file(out / name) as file:
        soundfile.write(file, np.clip(fixed.wav, -1, 1), fixed.sampling_rate, format="FLAC", subtype="PCM_16")
    return Mended(examined, Entry(name, examined.line.text, examined.line.speaker), fixed.changes)


def _is_error(finding: Finding) -> bool:
    return finding.severity == "error"


def _write_list(checked: CheckedList, mended: Sequence[Mended], out: Path) -> Path:
    entries = [each.entry for each in mended if each.examined.source == checked.path and each.entry is not None]
    target = out / checked.path.name
    write_list(target, entries, has_speakers=any(entry.speaker is not None for entry in entries))
    return target


def _write_words(out: Path, mended: Sequence[Mended], lists: Sequence[CheckedList], changes: Sequence[str]) -> None:
    """Two texts for a person: what was changed, and what was left out and why."""
    done = [f"{_where(each)}: {', '.join(each.words)}\n" for each in mended if each.entry is not None and each.words]
    write_atomic(out / CHANGES, "".join([*(f"{change}\n" for change in changes), *done]))
    lost = [f"{_where(each)}: {', '.join(each.words)}\n" for each in mended if each.entry is None]
    known = {(each.examined.source, each.examined.line.number) for each in mended}
    unread = [
        f"{finding.message}\n"
        for checked in lists
        for finding in checked.findings
        if finding.severity == "error" and (finding.source, finding.line) not in known
    ]
    write_atomic(out / LEFT_OUT, "".join([*unread, *lost]))


def _where(mended: Mended) -> str:
    return f"{mended.examined.source}:{mended.examined.line.number}"
