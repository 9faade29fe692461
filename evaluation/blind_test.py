"""`blind_test.html`: pairs of sounds of the same text, shuffled and unnamed; votes are saved to a file by download."""

import base64
import hashlib
import json
import os
from itertools import combinations
from pathlib import Path
from typing import Any

from common.files import write_atomic
from common.translations import Language, language_of, messages
from evaluation.judge import Judgement
from evaluation.page import chosen_texts, first_readings, sound_file, template
from monitoring.report.media import sound_uri

NAME = "blind_test.html"
SCRIPT = Path(__file__).with_name("blind_test.js")


def write_blind_test(judgement: Judgement, output: Path, language: Language | None = None) -> Path:
    """Beside the sounds that `judge` wrote into `output`. OSError if the disk refuses."""
    path = output / NAME
    write_atomic(path, render(judgement, output, language or language_of(os.environ)))
    return path


def render(judgement: Judgement, output: Path, language: Language) -> str:
    words, script = messages("blind", language), SCRIPT.read_text(encoding="utf-8")
    return template("blind_test.html").render(
        words=words,
        language=language,
        data=json.dumps({**_trial(judgement, output), "words": words}, ensure_ascii=False).replace("<", "\\u003c"),
        script=script,
        # the policy lets this very script run and no other, whatever a text holds
        digest=base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii"),
    )


def _trial(judgement: Judgement, output: Path) -> dict[str, Any]:
    """Names of the sources, each text with a sound of each, and which pairs are compared on which text.

    Pairs go round over the texts, so that a page of few texts still asks about every pair.
    """
    sources = list(judgement.marked)
    pairs = list(combinations(range(len(sources)), 2))
    texts, asked = [], []
    for i, name in enumerate(chosen_texts(first_readings(judgement))):
        one = next(each for each in first_readings(judgement) if each.clip.line.name == name)
        sounds = [sound_uri(sound_file(output, name, s, is_first=k == 0)) for k, s in enumerate(sources)]
        texts.append({"name": name, "text": one.clip.line.words, "sounds": sounds})
        asked.append({"text": i, "pair": pairs[i % len(pairs)]})
    what = {"evaluation": output.resolve().name, "step": judgement.step}
    return {**what, "sources": sources, "texts": texts, "asked": asked}
