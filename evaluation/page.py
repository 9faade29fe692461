"""`evaluation.html`: the table, and what everybody said side by side; one file, nothing from outside, no scripts."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from common.files import write_atomic
from common.translations import Language, language_of, messages
from evaluation.intervals import RESAMPLES
from evaluation.judge import Judgement, folder_of
from evaluation.measures import Marked
from evaluation.table import Measure, rows
from monitoring.report.media import picture_uri, sound_uri

NAME = "evaluation.html"
SHOWN_TEXTS = 20  # with their sounds some 10 MB
PICTURE_WIDTH = 1200  # pixels


@dataclass(frozen=True)
class Said:
    """One text as one source says it. heard: "" where no recogniser was asked."""

    source: str
    sound: str | None
    heard: str


@dataclass(frozen=True)
class Card:
    words: str
    said: Sequence[Said]
    picture: str | None


def write_page(judgement: Judgement, output: Path, language: Language | None = None) -> Path:
    """Beside the sounds that `judge` wrote into `output`. OSError if the disk refuses."""
    path = output / NAME
    write_atomic(path, render(judgement, output, language or language_of(os.environ)))
    return path


def render(judgement: Judgement, output: Path, language: Language) -> str:
    words, names = messages("evaluation", language), messages("measures", language)
    first = first_readings(judgement)
    texts = len({one.clip.line.name for one in first})
    shown = chosen_texts(first)
    n_readings = len(next(iter(judgement.marked.values())))
    return template("page.html").render(
        words=words,
        language=language,
        name=output.resolve().name,
        headline=words["headline"].format(readings=n_readings, texts=texts, step=judgement.step or "?"),
        sources=list(judgement.estimates),
        rows=[(names[m.name], _better(m, words), cells) for m, cells in rows(judgement)],
        intervals=words["intervals"].format(n=RESAMPLES),
        notes=judgement.notes,
        chosen=words["sounds_chosen"].format(shown=len(shown), texts=texts),
        cards=[_card(judgement, name, output) for name in shown],
    )


@cache
def template(name: str) -> Any:
    loader = FileSystemLoader(Path(__file__).parent)
    settings: dict[str, Any] = {"autoescape": True, "undefined": StrictUndefined, "trim_blocks": True}
    return Environment(loader=loader, lstrip_blocks=True, **settings).get_template(name)


def _better(measure: Measure, words: Mapping[str, str]) -> str:
    return words["best_is_recorded" if measure.better == "as recorded" else f"best_is_{measure.better}"]


def first_readings(judgement: Judgement) -> list[Marked]:
    """The first source's clips of its first seed."""
    clips = next(iter(judgement.marked.values()))
    return [one for one in clips if one.clip.seed == clips[0].clip.seed]


def chosen_texts(readings: Sequence[Marked]) -> list[str]:
    """Names of the texts to show: half of them those with most errors, the rest by the list, no text twice."""
    missed = [one for one in readings if (share := one.shares.get("wer")) is not None and share.amount]
    worst = sorted(missed, key=lambda one: one.shares["wer"].amount / one.shares["wer"].weight, reverse=True)
    ordered = [*worst[: SHOWN_TEXTS // 2], *readings]
    return list(dict.fromkeys(one.clip.line.name for one in ordered))[:SHOWN_TEXTS]


def _card(judgement: Judgement, name: str, output: Path) -> Card:
    """What every source said of one text, first readings only."""
    said, words = [], ""
    for i, (source, clips) in enumerate(judgement.marked.items()):
        one = next(each for each in clips if each.clip.line.name == name)
        words = one.clip.line.words
        said.append(Said(source, sound_uri(sound_file(output, name, source, is_first=i == 0)), one.heard or ""))
    picture = output / f"{name}.png"
    return Card(words, said, picture_uri(picture, width=PICTURE_WIDTH) if picture.is_file() else None)


def sound_file(output: Path, name: str, source: str, *, is_first: bool) -> Path:
    return (output if is_first else output / folder_of(source)) / f"{name}.wav"
