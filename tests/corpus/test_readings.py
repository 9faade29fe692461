"""What the reading of texts guesses is told before the first step, with counts and places."""

import logging
from pathlib import Path

import pytest

from data_utils import load_corpus
from hparams import create_hparams
from support.corpora import tiny_settings, write_corpus


def test_letters_that_become_others_are_counted_with_their_first_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    path = corpus / "train.txt"
    path.write_text(path.read_text().replace("one more", "ein B\u00e4r").replace("the fourth", "a\u00f1o"), "utf-8")
    with caplog.at_level(logging.WARNING, "tacotron2"):
        load_corpus(create_hparams(tiny_settings(corpus)))
    (told,) = [message for message in caplog.messages if message.startswith("texts: ")]
    assert told.startswith("texts: 2 x transliterated (a letter written as others): ") and f"(first: {path}:2)" in told
    assert "'\u00e4' read as 'a' 1 x" in told and "'\u00f1' read as 'n' 1 x" in told
