"""`python tests/campaign.py` as documented, with a small share of its repetitions."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
IS_POWER_OURS = os.geteuid() == 0 and Path("/dev/loop-control").exists()

pytestmark = pytest.mark.spec


@pytest.mark.parametrize("names", [
    ("kills", "rollbacks", "signals"),
    pytest.param(("power_cuts",), marks=pytest.mark.skipif(not IS_POWER_OURS, reason="needs root and loop devices")),
])  # fmt: skip
def test_campaigns_keep_all_promises(names: tuple[str, ...], tmp_path: Path) -> None:
    command = [sys.executable, str(REPOSITORY / "tests" / "campaign.py"), "--share", "0.02", *names]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("| yes |") == len(names)
