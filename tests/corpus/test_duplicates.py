"""Claims about what occurs twice: sounds, texts, and lines of both lists."""

from pathlib import Path

from corpus.duplicates import Heard, check_duplicate_sound, check_overlap


def heard(line: int, content: str, text: str, *, source: str = "train.csv", speaker: str | None = None) -> Heard:
    return Heard(Path(source), line, content, text, speaker)


def test_one_sound_with_two_texts_is_an_error_with_both_places() -> None:
    (finding,) = check_duplicate_sound([heard(1, "a", "One."), heard(2, "b", "One."), heard(3, "a", "Two.")])
    assert finding.severity == "error"
    assert finding.message.startswith("train.csv:3: same sound as line 1, there with")


def test_one_sound_twice_with_one_text_is_a_warning() -> None:
    (finding,) = check_duplicate_sound([heard(1, "a", "One."), heard(2, "a", "one!")])
    assert (finding.kind, finding.severity) == ("duplicate sound", "warning")


def test_one_sound_by_two_speakers_is_an_error() -> None:
    (finding,) = check_duplicate_sound([heard(1, "a", "One.", speaker="x"), heard(2, "a", "One.", speaker="y")])
    assert finding.kind == "same sound, other speaker"


def test_overlap_of_the_lists_names_sounds_and_texts() -> None:
    training = [heard(1, "a", "One."), heard(2, "b", "Two.")]
    validation = [heard(1, "a", "One.", source="val.csv"), heard(2, "c", "TWO!", source="val.csv"),
                  heard(3, "d", "Three.", source="val.csv")]  # fmt: skip
    kinds = [(f.line, f.kind) for f in check_overlap(training, validation)]
    assert kinds == [(1, "validation sound in training"), (2, "validation text in training")]
