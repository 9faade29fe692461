"""Symbols that training never met."""

import logging

import pytest

from common.errors import DataError
from speech.known_symbols import KnownSymbols
from text.symbol_sets import SymbolTable

TABLE = SymbolTable(("_", "a", "b", "?", " "))


def known(*counts: int) -> KnownSymbols:
    return KnownSymbols.of(TABLE.symbols, counts)


def test_a_symbol_that_training_never_met_is_named(caplog: pytest.LogCaptureFixture) -> None:
    known(0, 5, 1, 0, 9).check([[1, 1, 2, 3], [1, 3]], ["aab?", "a?"], TABLE)
    assert "the voice never met ? 2 x in training" in caplog.text


def test_a_text_of_mostly_unmet_symbols_is_refused() -> None:
    with pytest.raises(DataError, match=r"never met b 3 x in training, which is most of 'abbb'"):
        known(0, 5, 0, 1, 9).check([[1, 2, 2, 2]], ["abbb"], TABLE)


def test_what_training_met_is_said_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        known(0, 5, 1, 1, 9).check([[1, 2, 3]], ["ab?"], TABLE)
        KnownSymbols.of(TABLE.symbols, None).check([[2]], ["b"], TABLE)
    assert caplog.text == ""
