"""Claims about what is shown of a coverage: gaps, sentences of a text, a sheet to read from."""

import pytest

from corpus.coverage import coverage_of, suggest
from corpus.record_sheet import gaps, sentences_of, sheet_html, sheet_text


def test_a_text_is_split_into_sentences_that_can_be_read_aloud() -> None:
    text = 'He said: "Who is it?" Nobody\nanswered. In 1984 it rained!\n\nShe left...'
    assert sentences_of(text) == ['He said: "Who is it?"', "Nobody answered.", "She left..."]


def test_gaps_are_said_with_counts() -> None:
    said = " ".join(gaps(coverage_of(["the cat."] * 6 + ["a zoo."])))
    assert "z x1" in said and "no question yet" in said
    assert "no question yet" not in " ".join(gaps(coverage_of(["is it?"] * 6)))


def test_a_sheet_is_numbered_and_shows_no_markup_of_a_text() -> None:
    chosen = suggest(coverage_of([]), ["one <b>two</b> three", "three two one"], 2)
    assert sheet_text(chosen).splitlines()[0].startswith("0001|")
    page = sheet_html(chosen, title="2 sentences")
    assert "<b>two" not in page and "default-src 'none'" in page


@pytest.mark.parametrize("text", ["", "   ", "12345"])
def test_a_pool_without_sentences_gives_nothing(text: str) -> None:
    assert sentences_of(text) == []
