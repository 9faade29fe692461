"""Where the repository lies, and real speech that tests may use where it exists."""

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED_DATA = Path(os.environ.get("TACOTRON2_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
