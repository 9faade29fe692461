"""Where the repository lies, and real speech that tests may use where it exists."""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
