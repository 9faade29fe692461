"""The documents that are made from declarations have not drifted from them."""

from pathlib import Path

import pytest

from config import reference_docs, show_params
from config.reference_docs import DOCUMENTS, document, main
from hparams import field_names, preset_names


@pytest.mark.parametrize("language", DOCUMENTS)
def test_the_document_says_what_the_declarations_say(language: show_params.Language) -> None:
    stored = DOCUMENTS[language].read_text(encoding="utf-8")
    assert stored == document(language), "run `python -m config.reference_docs --write`"


@pytest.mark.parametrize("language", DOCUMENTS)
def test_the_document_has_a_row_for_every_parameter_and_preset(language: show_params.Language) -> None:
    first_cells = [line.split("|")[1].strip(" `") for line in document(language).splitlines() if line.startswith("|")]
    assert [cell for cell in first_cells if cell in field_names()] == list(field_names())
    assert [cell for cell in first_cells if cell in preset_names()] == preset_names()


def test_check_notices_a_drifted_document_and_write_mends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = {language: tmp_path / path.name for language, path in DOCUMENTS.items()}
    monkeypatch.setattr(reference_docs, "DOCUMENTS", paths)
    assert main(["--write"]) == 0 == main(["--check"])
    path = paths["ru"]
    path.write_text(path.read_text(encoding="utf-8").replace("48", "49", 1), encoding="utf-8")
    assert main(["--check"]) == 1
