"""Recordings and texts that occur more than once, in one list or in the lists of training and validation."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from corpus.findings import Finding, error, shown, warning
from corpus.list_checks import text_key


@dataclass(frozen=True)
class Heard:
    """One line with the name of its sound: `content` of RecordingMeasures, or the hash of the file."""

    source: Path
    line: int
    content: str
    text: str
    speaker: str | None = None


def check_duplicate_sound(lines: Sequence[Heard]) -> Iterator[Finding]:
    """Lines whose sound is that of an earlier line, under whatever name and in whatever format.

    With another text or speaker one of the two is wrong, which is an error; with the same it only counts twice.
    """
    first: dict[str, Heard] = {}
    for heard in lines:
        other = first.setdefault(heard.content, heard)
        if other is heard:
            continue
        place = _place(other, heard)
        if text_key(other.text) != text_key(heard.text):
            yield error(
                "same sound, other text",
                f'same sound as {place}, there with "{shown(other.text)}"',
                "listen, and drop the wrong line",
            ).at(heard.source, heard.line)
        elif other.speaker != heard.speaker:
            yield error(
                "same sound, other speaker", f"same sound as {place}, there by {other.speaker}", "drop the wrong line"
            ).at(heard.source, heard.line)
        else:
            yield warning("duplicate sound", f"same sound as {place}", "drop one").at(heard.source, heard.line)


def check_overlap(training: Sequence[Heard], validation: Sequence[Heard]) -> Iterator[Finding]:
    """Validation lines that training has too: their losses say nothing about what was learned."""
    sounds = {heard.content: heard for heard in training}
    texts = {(text_key(heard.text), heard.speaker): heard for heard in training}
    for heard in validation:
        if heard.content in sounds:
            yield warning(
                "validation sound in training",
                f"is also {_place(sounds[heard.content], heard)}",
                "take it out of one list",
            ).at(heard.source, heard.line)
        elif (text_key(heard.text), heard.speaker) in texts:
            other = texts[text_key(heard.text), heard.speaker]
            yield warning(
                "validation text in training",
                f'"{shown(heard.text)}" is also read in {_place(other, heard)}',
                "take it out of one list",
            ).at(heard.source, heard.line)


def _place(other: Heard, than: Heard) -> str:
    return f"line {other.line}" if other.source == than.source else f"{other.source}:{other.line}"
