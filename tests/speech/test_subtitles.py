"""SRT and TextGrid as other programs read them."""

import re

from speech.subtitles import cues_of, srt, textgrid
from speech.timing import TimedText


def test_srt_numbers_its_cues_and_counts_milliseconds() -> None:
    cues = [TimedText("Hello.", 0.0, 1.2345), TimedText("Again.", 3661.5, 3662.0)]
    assert srt(cues) == (
        "1\n00:00:00,000 --> 00:00:01,234\nHello.\n\n2\n01:01:01,500 --> 01:01:02,000\nAgain.\n"
    )


def test_a_long_cue_has_two_lines_of_about_the_same_length() -> None:
    text = "A line that is longer than what is read at one glance."
    (_, _, *lines) = srt([TimedText(text, 0, 1)]).splitlines()
    assert len(lines) == 2 and " ".join(lines) == text and max(map(len, lines)) <= 30


def test_a_sentence_of_many_lines_is_cut_between_words_at_their_times() -> None:
    written = [f"word{i}" for i in range(40)]
    words = [TimedText(word, i, i + 0.5) for i, word in enumerate(written)]
    cues = cues_of(TimedText(" ".join(written), 0, 40), words)
    assert len(cues) > 2 and " ".join(cue.text for cue in cues) == " ".join(written)
    for cue in cues:
        first, *_, last = cue.text.split()
        assert (cue.start_s, cue.end_s) == (float(first[4:]), float(last[4:]) + 0.5)
        assert len(cue.text) <= 84


def test_a_sentence_whose_words_have_no_times_stays_one_cue() -> None:
    sentence = TimedText("x " * 60, 0, 9)
    assert cues_of(sentence, [TimedText("other", 0, 1)]) == [sentence]


def intervals(grid: str) -> list[tuple[float, float, str]]:
    found = re.findall(r'xmin = ([\d.]+)\n\s+xmax = ([\d.]+)\n\s+text = "((?:[^"]|"")*)"', grid)
    return [(float(a), float(b), text.replace('""', '"')) for a, b, text in found]


def test_a_textgrid_has_no_gaps_and_no_empty_stretches() -> None:
    timed = [TimedText('say "a"', 0.5, 1.0), TimedText("gone", 1.0, 1.0), TimedText("b", 0.9, 1.5)]
    grid = textgrid({"words": timed}, duration_s=2.0)
    assert intervals(grid) == [(0, 0.5, ""), (0.5, 1.0, 'say "a"'), (1.0, 1.5, "b"), (1.5, 2.0, "")]
    assert grid.startswith('File type = "ooTextFile"\nObject class = "TextGrid"\n')


def test_a_tier_without_anything_is_one_empty_interval() -> None:
    assert intervals(textgrid({"words": []}, duration_s=1.0)) == [(0.0, 1.0, "")]
