"""Workers of one study in several directories, killed at random moments; on SQLite and on a real PostgreSQL.

`python tests/campaign.py searches` does the same for longer.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from support import postgres
from support.paths import REPOSITORY


def killed_searches(folder: Path, *, share: str, timeout_s: float) -> list[str]:
    """The rows of the table: SQLite's, then PostgreSQL's."""
    command = [sys.executable, str(REPOSITORY / "tests/campaign.py"), "--share", share, "searches"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=timeout_s)
    assert done.returncode == 0, done.stdout + done.stderr
    return [line for line in done.stdout.splitlines() if line.startswith("| kill -9")]


@pytest.mark.campaign
def test_killed_workers_leave_a_study_whole_and_its_count_exact(tmp_path: Path) -> None:
    on_sqlite, on_postgresql = killed_searches(tmp_path, share="0.03", timeout_s=300)
    assert "3 kills" in on_sqlite and "4 of 4 trials finished" in on_sqlite
    if reason := postgres.missing():
        pytest.skip(f"PostgreSQL: {reason}")
    assert "3 kills" in on_postgresql and "4 of 4 trials finished" in on_postgresql


@pytest.mark.campaign
def test_a_hundred_killed_workers_leave_a_study_whole_and_its_count_exact(tmp_path: Path) -> None:
    rows = killed_searches(tmp_path, share="1", timeout_s=3600)
    assert all("100 kills" in row and "140 of 140 trials finished" in row for row in rows)
