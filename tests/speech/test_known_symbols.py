"""Symbols that training never met."""

import logging

import pytest
import torch

from common.errors import DataError
from speech.known_symbols import KnownSymbols
from text.symbol_sets import SymbolTable

TABLE = SymbolTable(("_", "a", "b", "?", " "))


def known(*counts: int) -> KnownSymbols:
    return KnownSymbols.of(counts, torch.ones(5, 2))


def test_a_symbol_that_training_never_met_is_named(caplog: pytest.LogCaptureFixture) -> None:
    known(0, 5, 1, 0, 9).check([[1, 1, 2, 3], [1, 3]], ["aab?", "a?"], TABLE)
    assert "the voice never met ? 2 x in training" in caplog.text


def test_a_text_of_mostly_unmet_symbols_is_refused() -> None:
    with pytest.raises(DataError, match=r"never met b 3 x in training, which is most of 'abbb'"):
        known(0, 5, 0, 1, 9).check([[1, 2, 2, 2]], ["abbb"], TABLE)


def test_a_voice_that_does_not_say_what_it_met_shows_it_by_rows_of_zeros(caplog: pytest.LogCaptureFixture) -> None:
    """As a voice of letters that is given phonemes: most rows are zero."""
    voice = KnownSymbols.of(None, torch.tensor([[0.0], [1.3], [0.0], [0.001], [1.0]]))
    voice.check([[1, 1, 1, 3]], ["aaa?"], TABLE)
    assert "never met ? 1 x" in caplog.text
    with pytest.raises(DataError, match="never met b 2 x"):
        voice.check([[2, 2]], ["bb"], TABLE)


def test_what_training_met_is_said_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        known(0, 5, 1, 1, 9).check([[1, 2, 3]], ["ab?"], TABLE)
        KnownSymbols.of(None, torch.tensor([[0.0], [-0.5], [1.0], [0.02], [0.3]])).check([[1, 2, 3]], ["ab?"], TABLE)
    assert caplog.text == ""
