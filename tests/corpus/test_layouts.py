"""Claims about layouts: columns are told by what stands in them, and others' lists are refused by name."""

import pytest

from corpus.layouts import recognise, refusal
from support.speech_like import SENTENCES

WORDS = "red green blue old new big small cat dog house river tree apple walks sings near far".split()


def rows(pattern: str) -> list[str]:
    return [pattern.format(i=i, odd=i % 2, text=text, word=WORDS[i]) for i, text in enumerate(SENTENCES)]


@pytest.mark.parametrize(
    ("pattern", "columns"),
    [
        ("wavs/{i}.wav|{text}", "wav|text"),
        ("wavs/{i}.wav|{text}|anna", "wav|text|speaker"),
        ("wavs/{i}.wav|{text}|Bob Smith {odd}", "wav|text|speaker"),
        ("wavs/{i}.wav|{word}|anna", "wav|text|speaker"),
        ("wavs/{i}.wav|{i}00|anna", "wav|text|speaker"),
        ("wavs/{i}.wav|{i}00", "wav|text"),
        ("LJ001-{i}|{text}|{text}", "id|text|normalised text"),
        ("LJ001-{i}|{text}", "id|text"),
        ("wavs/{i}.wav|{odd}|{text}", "wav|speaker|text"),
        ("wavs/{i}.wav|ann|{word}", "wav|speaker|text"),
        ("wavs/{i}.wav|ann|EN|{text}", "wav|speaker|language|text"),
        ("u{i}|{odd}|{text}", "id|speaker|text"),
        ("{text}|wavs/{i}.wav", "text|wav"),
        ("wavs/{i}.wav\t{text}", "wav<tab>text"),
        ("wavs/{i}.wav,{text}", "wav,text"),
        ("utt_{i} {text}", "id text"),
    ],
)
def test_columns_are_told_by_what_stands_in_them(pattern: str, columns: str) -> None:
    layout = recognise(rows(pattern))
    assert layout is not None and layout.columns == columns
    ours = columns in ("wav|text", "wav|text|speaker", "id|text", "id|text|normalised text")
    assert (refusal(layout) is None) == ours


@pytest.mark.parametrize("n", [1, 2, 12])
def test_a_list_of_vits_is_refused_with_the_order_to_write(n: int) -> None:
    texts = [SENTENCES[i % len(SENTENCES)] for i in range(n)]
    layout = recognise([f"wavs/u{i}.wav|{i % 2}|{text}" for i, text in enumerate(texts)])
    finding = refusal(layout)
    assert finding is not None and "write wav|text|speaker" in finding.advice and "VITS" in finding.detail


def test_which_column_names_recordings_is_looked_up() -> None:
    layout = recognise(["hello there|u1", "good day|u2"], exists=lambda column: column in ("u1", "u2"))
    assert layout is not None and layout.roles == ("text", "id") and "name recordings that are there" in layout.why


@pytest.mark.parametrize("bad", ["wavs/2.wav Good day, all of you.", "wavs/2.wav", "# 2 of the best"])
@pytest.mark.parametrize("is_first", [False, True])
def test_one_bad_line_of_two_does_not_make_a_list_another_programs(bad: str, is_first: bool) -> None:
    lines = ["wavs/1.wav|Hello to you all.", bad]
    layout = recognise(lines[::-1] if is_first else lines)
    assert layout is not None and layout.columns == "wav|text" and refusal(layout) is None


def test_a_bar_in_a_text_does_not_hide_kaldis_list() -> None:
    layout = recognise([*rows("utt_{i} {text}"), "utt_99 one | two"])
    assert layout is not None and layout.name == "Kaldi's text file"
