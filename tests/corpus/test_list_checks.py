"""Claims about lists: whatever stands in them is named with kind and line, and the good rest is read."""

from pathlib import Path

import pytest

from corpus.list_checks import Places, check_list
from support import hostile_lists, hostile_recordings

LINES = hostile_lists.good_lines()
LISTS = hostile_lists.bad_lists()


RECORDINGS = hostile_recordings.bad_recordings()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hostile_lists.write_folder(tmp_path_factory.mktemp("hostile") / "data")


def test_there_are_at_least_80_lists_and_40_recordings() -> None:
    assert len({case.name for case in LISTS}) == len(LISTS) >= 80
    assert len({case.name for case in RECORDINGS}) == len(RECORDINGS) >= 40


@pytest.mark.parametrize("case", LISTS, ids=lambda case: case.name)
def test_a_list_is_judged_as_it_deserves(case: hostile_lists.BadList, folder: Path, tmp_path: Path) -> None:
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


def test_one_text_for_many_recordings_is_told_once(folder: Path, tmp_path: Path) -> None:
    lines = [line.partition("|")[0] + "|The same text." if i < 6 else line for i, line in enumerate(LINES)]
    path = folder / "filled_down.csv"
    path.write_text("\n".join(lines))
    found = [f for f in check_list(path, Places.of(path, dataset_path=folder)).findings if f.severity != "note"]
    assert [(f.line, f.kind, f.severity) for f in found] == [(1, "one text", "warning")]
    assert "6 of 8 lines have one text" in found[0].message
