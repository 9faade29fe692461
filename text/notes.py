"""What a front end says about a text beside its symbols: what it guessed or left out, and why it cannot be read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

NoteKind = Literal[
    "unknown word",  # no dictionary has it: the pronunciation or stress is a guess
    "homograph",  # one spelling, several readings: chosen by the context
    "doubtful stress",  # the stress model is not sure
    "no stress",  # nothing tells where the stress is
    "restored yo",  # Russian: written with the letter ie, read as yo
    "foreign word",  # in another alphabet than the language's
    "language switch",  # read by the rules of another language
    "written out",  # numbers, dates, abbreviations, signs
    "transliterated",  # one letter written as others
    "look-alike",  # a letter of another alphabet that looks like the right one
    "dropped",  # has no sound or no symbol
]

# For who meets the word for the first time.
MEANINGS: Mapping[NoteKind, str] = {
    "unknown word": "in no dictionary, so read by a guess",
    "homograph": "one spelling, several readings; chosen by the sentence",
    "doubtful stress": "the stress may be on another syllable",
    "no stress": "nothing tells which syllable is stressed",
    "restored yo": "the letter yo, written without its dots",
    "foreign word": "in another alphabet",
    "language switch": "read by the rules of another language",
    "look-alike": "a letter of another alphabet that looks the same",
    "transliterated": "a letter written as others",
    "dropped": "has no sound, so it is left out",
    "written out": "numbers, dates and abbreviations in words",
}

# What a person may want to correct comes first.
NOTE_KINDS: tuple[NoteKind, ...] = (
    "unknown word", "homograph", "doubtful stress", "no stress", "restored yo", "foreign word", "language switch",
    "look-alike", "transliterated", "dropped", "written out",
)  # fmt: skip

ProblemKind = Literal["unknown characters", "unknown phonemes", "wrong script", "empty text", "cannot be read"]


@dataclass(frozen=True)
class Note:
    """`what` is a word or character of the text, `reading` what was made of it ("" where nothing)."""

    kind: NoteKind
    what: str
    reading: str
    count: int = 1

    def to_list(self) -> list[Any]:
        """Plain data; `Note(*note.to_list())` is the note again."""
        return [self.kind, self.what, self.reading, self.count]


@dataclass(frozen=True)
class TextProblem:
    """Why a text cannot be read. `detail` reads "what; what to do"; `characters` counts those it is about."""

    kind: ProblemKind
    detail: str
    characters: Mapping[str, int] = field(default_factory=dict)

    def to_list(self) -> list[Any]:
        """Plain data; `TextProblem(*problem.to_list())` is the problem again."""
        return [self.kind, self.detail, dict(self.characters)]
