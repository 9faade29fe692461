"""Sentences, clauses, paragraphs and pauses of long texts."""

import pytest

from common.errors import DataError
from speech.long_text import Pauses, sentences_by_punctuation, split_text

PAUSES = Pauses(clause_s=0.1, sentence_s=0.2, paragraph_s=0.7)


def texts_of(text: str, *, language: str = "en", longest: int = 100) -> list[str]:
    return [part.text for part in split_text(text, language=language, longest=longest)]


@pytest.mark.parametrize(
    ("language", "text", "sentences"),
    [
        ("en", "Dr. Smith left at 5 p.m. on Jan. 3rd. He had $3.50!", ["Dr. Smith left at 5 p.m. on Jan. 3rd.",
                                                                        "He had $3.50!"]),
        ("en", '"Really?" he said. "Yes." She left... Then rain.', ['"Really?" he said.', '"Yes."', "She left...",
                                                                     "Then rain."]),
        ("ru", "\u041e\u043d \u0436\u0438\u043b \u0432 \u0433. \u041c\u043e\u0441\u043a\u0432\u0435. \u0422.\u0435. "
               "\u043d\u0435\u0434\u0430\u043b\u0435\u043a\u043e. \u041e\u043d \u0443\u0448\u0451\u043b\u2026 "
               "\u0427\u0442\u043e?",
         ["\u041e\u043d \u0436\u0438\u043b \u0432 \u0433. \u041c\u043e\u0441\u043a\u0432\u0435.",
          "\u0422.\u0435. \u043d\u0435\u0434\u0430\u043b\u0435\u043a\u043e.",
          "\u041e\u043d \u0443\u0448\u0451\u043b\u2026", "\u0427\u0442\u043e?"]),
        ("ru", '"\u0421\u0442\u043e\u0439!" - \u043a\u0440\u0438\u043a\u043d\u0443\u043b \u043e\u043d.',
         ['"\u0421\u0442\u043e\u0439!" - \u043a\u0440\u0438\u043a\u043d\u0443\u043b \u043e\u043d.']),
        ("de", "Das ist z. B. Herr Dr. M\u00fcller am 3. Mai. Gut.", ["Das ist z. B. Herr Dr. M\u00fcller am 3. Mai.",
                                                                       "Gut."]),
    ],
)  # fmt: skip
def test_a_text_is_split_into_its_sentences(language: str, text: str, sentences: list[str]) -> None:
    assert texts_of(text, language=language) == sentences


def test_line_breaks_are_spaces_and_blank_lines_end_paragraphs() -> None:
    parts = split_text("One\nline. Two.\r\n\r\n\n***\n\nThree.", language="en", longest=80, pauses=PAUSES)
    assert [(part.text, part.pause_s, part.line) for part in parts] == [
        ("One line.", 0.2, 1), ("Two.", 0.7, 2), ("Three.", 0.0, 7)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("mark", "pause_s"),
    [
        ("[pause 0.5s]", 0.5), ("[Pause 500 ms]", 0.5), ("[pause 1,5]", 1.5), ("[pause]", 0.7),
        ("[pause 1s][pause 2s]", 3.0),
    ],
)  # fmt: skip
def test_a_mark_of_a_pause_is_silence(mark: str, pause_s: float) -> None:
    parts = split_text(f"One {mark} two.", language="en", longest=80, pauses=PAUSES)
    assert [(part.text, part.pause_s) for part in parts] == [("One", pause_s), ("two.", 0.0)]


def test_a_text_may_begin_and_end_with_silence() -> None:
    parts = split_text("[pause 2s] One. [pause 3s]", language="en", longest=80)
    assert [(part.text, part.pause_s) for part in parts] == [("", 2.0), ("One.", 3.0)]


def test_all_pauses_that_cannot_be_understood_are_named_at_once() -> None:
    with pytest.raises(DataError, match="2 pauses cannot be understood") as caught:
        split_text("a [pause soon]\n b [pause 100s] c", language="en", longest=80)
    assert "line 1: [pause soon]; write [pause 0.5s]" in str(caught.value)
    assert "line 2: [pause 100s] is longer than 60 s" in str(caught.value)


def test_a_sentence_that_is_too_long_is_cut_where_it_is_heard_least() -> None:
    text = "The first half of it has some words; and the second one, it is said, has a few more."
    assert texts_of(text, longest=60) == [
        "The first half of it has some words;", "and the second one, it is said, has a few more."
    ]  # fmt: skip
    numbers = "one two three four five six seven eight"
    assert texts_of(numbers, longest=20) == ["one two three four", "five six seven eight"]


def test_phonemes_in_braces_stay_together() -> None:
    text = "It is {HH AH0 L OW1 W ER1 L D} again and again and again."
    for longest in range(10, 50):
        parts = texts_of(text, longest=longest)
        assert sum("{HH AH0 L OW1 W ER1 L D}" in part for part in parts) == 1, longest
        assert " ".join(parts) == text


def test_nothing_gets_lost_whatever_the_length() -> None:
    text = "Dr. No, said he; and then - well... What? " * 30 + "x" * 500
    for longest in (10, 33, 80, 1000):
        parts = split_text(text, language="en", longest=longest)
        assert "".join(part.text for part in parts).replace(" ", "") == text.replace(" ", "")
        assert max(len(part.text) for part in parts) <= longest


def test_splitting_takes_time_in_proportion_to_the_text() -> None:
    text = "hello there my name " * 5_000  # 100,000 characters without a comma
    assert len(split_text(text, language="en", longest=80)) == 1250


@pytest.mark.parametrize("text", ["", "...", " \n\n* * *\n", "\u2014!?"])
def test_a_text_without_words_has_no_parts(text: str) -> None:
    assert split_text(text, language="en", longest=80) == []


def test_without_a_package_sentences_end_at_their_punctuation() -> None:
    parts = split_text("One. Two! Three? Four", language="en", longest=80, segmenter=sentences_by_punctuation)
    assert [part.text for part in parts] == ["One.", "Two!", "Three?", "Four"]
