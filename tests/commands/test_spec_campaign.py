"""`python tests/campaign.py` as documented, with a small share of its repetitions."""

import subprocess
import sys
from pathlib import Path

import pytest

from campaigns import power
from support.paths import REPOSITORY

pytestmark = pytest.mark.campaign

needs_power = pytest.mark.skipif(not power.is_possible(), reason="needs root, loop devices and mkfs.ext4")


@pytest.mark.parametrize("names", [("rollbacks",), pytest.param(("power_cuts",), marks=needs_power)])
def test_campaigns_keep_all_promises(names: tuple[str, ...], tmp_path: Path) -> None:
    command = [sys.executable, str(REPOSITORY / "tests" / "campaign.py"), "--share", "0.02", *names]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("| yes |") == len(names)
