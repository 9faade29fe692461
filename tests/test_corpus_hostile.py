"""Claims about hostile lists and recordings: each is named with its kind and line, and nothing breaks."""

import math
from pathlib import Path

import pytest

import hostile_corpus
from corpus.findings import Finding
from corpus.list_checks import Places, check_list
from corpus.measuring import MeasureIndex, measure_file
from corpus.recording_checks import check_recording
from corpus.recording_measures import RecordingMeasures

LISTS = hostile_corpus.bad_lists()
RECORDINGS = hostile_corpus.bad_recordings()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hostile_corpus.write_folder(tmp_path_factory.mktemp("hostile") / "data")


def test_there_are_at_least_80_lists_and_40_recordings() -> None:
    assert len({case.name for case in LISTS}) == len(LISTS) >= 80
    assert len({case.name for case in RECORDINGS}) == len(RECORDINGS) >= 40


@pytest.mark.parametrize("case", LISTS, ids=lambda case: case.name)
def test_a_list_is_judged_as_it_deserves(case: hostile_corpus.BadList, folder: Path, tmp_path: Path) -> None:
    path = folder / f"{abs(hash(case.name))}.csv"
    path.write_bytes(case.content)
    try:
        checked = check_list(path, Places.of(path, dataset_path=folder))
    finally:
        path.unlink()
    assert {(f.line, f.kind) for f in checked.findings} == set(case.expected), [f.message for f in checked.findings]
    n_errors = len({f.line for f in checked.findings if f.severity == "error"})
    if not any(f.line == 0 and f.severity == "error" for f in checked.findings):
        n_lines = sum(bool(line.strip()) for line in case.content.replace(b"\r", b"\n").split(b"\n"))
        n_lines -= case.name == "a carriage return inside"  # which ends no line
        assert len(checked.lines) == n_lines - n_errors  # the good rest trains
    for finding in checked.findings:
        where = f"{path}:{finding.line}: " if finding.line else f"{path}: "
        assert finding.message.startswith(where)
        assert finding.message.isprintable(), "safe to show on a terminal"
        assert len(finding.message) < 1500


@pytest.mark.parametrize("case", RECORDINGS, ids=lambda case: case.name)
def test_a_recording_is_judged_as_it_deserves(case: hostile_corpus.BadRecording, tmp_path: Path) -> None:
    path = tmp_path / f"u{case.suffix}"
    path.write_bytes(case.content())
    measured = measure_file(path, hash_of=lambda path: "0", index=MeasureIndex(tmp_path / "index.json"))
    findings = [measured] if isinstance(measured, Finding) else check_recording(measured)
    kinds = {finding.kind for finding in findings}
    said = [finding.message for finding in findings]
    for wanted in hostile_corpus.kinds_of(case.kinds):
        assert kinds & wanted, said
    assert kinds <= set().union(*hostile_corpus.kinds_of(case.kinds)), said
    if isinstance(measured, RecordingMeasures):
        numbers = [value for value in measured.to_dict().values() if isinstance(value, float)]
        assert all(map(math.isfinite, [*numbers, *measured.channel_db]))
