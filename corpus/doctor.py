"""The examination of a corpus: lists, texts, recordings, and each against all others. One report for a person.

Training runs the same checks before its first step; `examine` adds what takes longer or only interests a person.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from common.errors import DataError
from corpus.duplicates import Heard, check_duplicate_sound, check_overlap
from corpus.findings import SEVERITIES, Finding, error, shown
from corpus.levels import check_evenness, check_levels
from corpus.list_checks import CheckedList, ListedLine, Places, check_list
from corpus.measuring import Measured, MeasureIndex, measure_files
from corpus.rate_labels import Pitched, check_rate_labels, check_whole
from corpus.recording_checks import Wanted, check_recording
from corpus.recording_measures import RecordingMeasures
from corpus.speech_rate import Rate, Spoken, check_speech_rate, speech_rates

Progress = Callable[[int, int], None]
UnknownCharacters = Callable[[str], Counter[str]]  # of a text: those that the voice's symbols lack


@dataclass(frozen=True)
class Examined:
    """One usable line with what was measured of it; findings are those of this line."""

    line: ListedLine
    source: Path
    measures: RecordingMeasures | None
    rate: Rate | None = None
    findings: tuple[Finding, ...] = ()

    @property
    def is_usable(self) -> bool:
        return not any(finding.severity == "error" for finding in self.findings)


@dataclass(frozen=True)
class Examination:
    """All that was found: the lists as read, their lines, and every finding in the order of lists and lines."""

    lists: tuple[CheckedList, ...]
    lines: tuple[Examined, ...]
    findings: tuple[Finding, ...] = field(default=())

    def counts(self) -> dict[str, Counter[str]]:
        """Kinds with their counts, by severity."""
        counts: dict[str, Counter[str]] = {severity: Counter() for severity in SEVERITIES}
        for finding in self.findings:
            counts[finding.severity][finding.kind] += 1
        return counts

    @property
    def usable(self) -> list[Examined]:
        return [examined for examined in self.lines if examined.is_usable]


def examine(
    paths: Sequence[Path],
    *,
    dataset_path: Path,
    data_roots: Sequence[Path] = (),
    wanted: Wanted | None = None,
    hash_of: Callable[[Path], str],
    index: MeasureIndex,
    contents: Mapping[Path, bytes] | None = None,
    unknown_characters: UnknownCharacters | None = None,
    names_mels: bool = False,
    progress: Progress | None = None,
) -> Examination:
    """Everything about lists: the first trains, the others are compared with it. A list named twice counts as one.

    contents: to be taken for what stands in the lists. hash_of names the content of a file; index keeps measures
    between runs. names_mels: the lists name `.npy` mels, of which nothing is measured. progress(done, total) counts
    recordings. Raises DataError where a list can't be read at all.
    """
    _require_folders(dataset_path, data_roots)
    paths = list(dict.fromkeys(paths))
    places = [
        Places.of(path, dataset_path=dataset_path, data_roots=data_roots, names_mels=names_mels) for path in paths
    ]
    contents = contents or {}
    lists = tuple(check_list(path, p, content=contents.get(path)) for path, p in zip(paths, places, strict=True))
    listed = [(line, checked.path) for checked in lists for line in checked.lines]
    sounds = [] if names_mels else list(dict.fromkeys(line.audio_path for line, _ in listed))
    measured = dict(zip(sounds, measure_files(sounds, hash_of=hash_of, index=index, progress=progress), strict=True))
    lines = [_examined(line, source, measured.get(line.audio_path), wanted) for line, source in listed]
    lines = _compared(lines)
    found = [finding for checked in lists for finding in checked.findings]
    if unknown_characters is not None:
        found += _unknown(lines, unknown_characters)
    found += [finding for examined in lines for finding in examined.findings]
    found += _across(lines, [checked.path for checked in lists])
    wholes = (check_whole([_pitched(e) for e in lines]), check_evenness(*_levels(lines)))
    found += [whole.at(paths[0]) for whole in wholes if whole is not None]
    return _assigned(Examination(lists, tuple(lines), tuple(_in_order(found, paths))))


def _require_folders(dataset_path: Path, data_roots: Sequence[Path]) -> None:
    """DataError where a folder was named that is none. The dataset's may be missing: lists look beside themselves."""
    wrong = [f"data_roots (--data-root): {root} is no folder" for root in data_roots if not root.is_dir()]
    if dataset_path.exists() and not dataset_path.is_dir():
        wrong.append(f"dataset_path (--dataset-path): {dataset_path} is a file, and no folder")
    if wrong:
        raise DataError(f"{'; '.join(wrong)}; correct the path")


def _examined(line: ListedLine, source: Path, measured: Measured | None, wanted: Wanted | None) -> Examined:
    if measured is None:
        return Examined(line, source, None)
    if isinstance(measured, Finding):
        return Examined(line, source, None, findings=(measured.at(source, line.number),))
    found = check_recording(measured, wanted)
    named = [replace(f, detail=f"{line.utterance_id}: {f.detail}") for f in found]
    return Examined(line, source, measured, findings=tuple(f.at(source, line.number) for f in named))


def _compared(lines: Sequence[Examined]) -> list[Examined]:
    """The lines with their speech rates, judged together."""
    spoken = [Spoken(e.line.text, e.measures.sound_s if e.measures else 0.0, e.line.speaker or "") for e in lines]
    rated = [replace(e, rate=rate) for e, rate in zip(lines, speech_rates(spoken), strict=True)]
    labels = check_rate_labels([_pitched(e) for e in rated])
    whys = map(_why_odd, labels, check_speech_rate(spoken))
    return [_with(*each) for each in zip(rated, whys, check_levels(*_levels(rated)), strict=True)]


def _with(examined: Examined, *found: Finding | None) -> Examined:
    """The line with what comparing has found; what is silence or noise is not compared."""
    if not examined.is_usable:
        return examined
    placed = [finding.at(examined.source, examined.line.number) for finding in found if finding is not None]
    return replace(examined, findings=(*examined.findings, *placed))


def _levels(lines: Sequence[Examined]) -> tuple[list[float | None], list[str]]:
    levels = [e.measures.loud_db if e.measures is not None and e.is_usable else None for e in lines]
    return levels, [e.line.speaker or "" for e in lines]


def _pitched(e: Examined) -> Pitched:
    speaker, ratio = e.line.speaker or "", e.rate.ratio if e.rate is not None and e.is_usable else 0.0
    if e.measures is None:
        return Pitched(e.line.text, 0.0, ratio, 0.0, 0, speaker)
    return Pitched(e.line.text, e.measures.sound_s, ratio, e.measures.pitch_hz, e.measures.sampling_rate, speaker)


def _why_odd(label: Finding | None, odd: Finding | None) -> Finding | None:
    """A wrong label explains a wrong duration, unless that is beyond any."""
    return odd if label is None or (odd is not None and odd.severity == "error") else label


def _unknown(lines: Sequence[Examined], unknown_characters: UnknownCharacters) -> list[Finding]:
    """Lines with characters that the symbols lack, and the counts of all of them in front."""
    total: Counter[str] = Counter()
    found: list[Finding] = []
    for examined in lines:
        unknown = unknown_characters(examined.line.text)
        if unknown:
            total += unknown
            finding = error("unknown characters", f'{_named(unknown)} in "{shown(examined.line.text)}"', "spell it out")
            found.append(finding.at(examined.source, examined.line.number))
    return found


def _named(counts: Counter[str]) -> str:
    """Characters with their numbers, and what stands in braces as it is."""
    codes = {symbol: f" (U+{ord(symbol):04X})" if len(symbol) == 1 else "" for symbol in counts}
    return ", ".join(f"{symbol!r}{codes[symbol]} x{n}" for symbol, n in counts.most_common(5))


def _across(lines: Sequence[Examined], paths: Sequence[Path]) -> list[Finding]:
    """What two lines or two lists have in common."""
    by_list: defaultdict[Path, list[Heard]] = defaultdict(list)
    for e in lines:
        if e.measures is not None and e.is_usable:  # all silence sounds the same
            by_list[e.source].append(Heard(e.source, e.line.number, e.measures.content, e.line.text, e.line.speaker))
    found = [finding for heard in by_list.values() for finding in check_duplicate_sound(heard)]
    for other in paths[1:]:
        found += check_overlap(by_list[paths[0]], by_list[other])
    return found


def with_findings(examination: Examination, more: Sequence[Finding]) -> Examination:
    """The same with what was found later."""
    paths = [checked.path for checked in examination.lists]
    found = _in_order([*examination.findings, *more], paths)
    return _assigned(replace(examination, findings=tuple(found)))


def _in_order(findings: Sequence[Finding], paths: Sequence[Path]) -> list[Finding]:
    """By list, line and weight."""
    order = {path: i for i, path in enumerate(paths)}
    return sorted(findings, key=lambda f: (order.get(f.source, -1), f.line, SEVERITIES.index(f.severity)))  # type: ignore[arg-type]


def _assigned(examination: Examination) -> Examination:
    """Each line with all of its findings, those of its text included."""
    by_place: defaultdict[tuple[Path | None, int], list[Finding]] = defaultdict(list)
    for finding in examination.findings:
        by_place[finding.source, finding.line].append(finding)
    lines = tuple(replace(e, findings=tuple(by_place[e.source, e.line.number])) for e in examination.lines)
    return replace(examination, lines=lines)
