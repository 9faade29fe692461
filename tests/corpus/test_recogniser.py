"""Claims about the recogniser: which model hears a language, and what is said where one is missing."""

from pathlib import Path

import pytest

from common.errors import UserError
from corpus.recogniser import model_folder


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no model\.bin there"):
        model_folder("en", tmp_path)
