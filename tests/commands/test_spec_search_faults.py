"""A search of real trials whose database, disk or trials fail: `python tests/campaign.py search_faults`."""

import random
from pathlib import Path

import pytest

from campaigns.search_faults import FAULTS, Fault
from campaigns.table import Place
from support.corpora import write_corpus


@pytest.mark.campaign
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_search_ends_well_and_its_count_is_exact(
    fault: Fault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TACOTRON2_CACHE", str(tmp_path / "cache"))
    row = fault(Place(tmp_path, write_corpus(tmp_path / "data")), random.Random(1234))
    assert row.is_kept, row
