"""What listeners that do not tire say of each clip: the recogniser, the speaker encoder, the quality model.

Each is optional, asked only where its package is installed, and remembered by what the file holds. They take a tenth to
a fifth of the clips' duration each on one core.
"""

import sys
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import soxr

from corpus.findings import Finding, shown, warning
from corpus.json_index import JsonIndex
from corpus.recogniser import RATE, Recogniser
from corpus.recording_files import UnreadableRecording, read_recording

HEARD_OTHERWISE = 0.5  # character errors; a small recogniser makes under 0.3 of nearly every good clip
DEAF = 0.4  # a median over this says that the recogniser can't judge this corpus
OTHER_SPEAKER = 0.7  # cosine with the speaker's mean; one voice measured 0.85 and more, two 0.5 to 0.68
OTHER_SPEAKER_DEVIATIONS = 5.0
LEAST_ENCODED_S = 1.0
POOR = 2.5  # of 1 to 5
POOR_DEVIATIONS = 4.0
SECONDS_A_SECOND = {"words": 0.12, "speaker": 0.15, "quality": 0.22}  # CPU, measured on one core
SPEAKER_HINT = "pip install --no-deps resemblyzer==0.1.4 webrtcvad-wheels"
QUALITY_HINT = "pip install --no-deps distillmos==0.9.1 xls-r-sqa==0.1.0"


@dataclass(frozen=True)
class Clip:
    """What is listened to; speaker "" where none is named."""

    path: Path
    text: str
    speaker: str = ""


@dataclass(frozen=True)
class Heard:
    """What was heard in one clip; None where nobody was asked, or the file gives no sound.

    errors: character errors of what was heard against the text, both normalised. voice: unit vector. quality: 1 to 5.
    """

    heard: str | None = None
    errors: float | None = None
    voice: tuple[float, ...] | None = None
    likeness: float | None = None
    quality: float | None = None


class Listeners:
    """Those that are installed. `missing` says in words who is not, and how to install them."""

    def __init__(self, language: str, *, model: Path | None = None) -> None:
        """UserError where the recogniser is missing."""
        self.language = language
        self.recogniser = Recogniser(language, model=model)
        self.has_speakers = find_spec("resemblyzer") is not None
        self.has_quality = find_spec("distillmos") is not None

    @property
    def missing(self) -> list[str]:
        said = []
        if not self.has_speakers:
            said.append(f"other speakers are not looked for: {SPEAKER_HINT}")
        if not self.has_quality:
            said.append(f"the quality of sound is not judged: {QUALITY_HINT}")
        return said

    def estimated_s(self, sound_s: float) -> float:
        """Seconds that listening to so much sound takes about, on one core."""
        asked = ["words", *(["speaker"] if self.has_speakers else []), *(["quality"] if self.has_quality else [])]
        return sound_s * sum(SECONDS_A_SECOND[name] for name in asked)

    @property
    def key(self) -> str:
        return f"{self.recogniser.name};{self.has_speakers:d}{self.has_quality:d}"

    def hear(self, wav: np.ndarray) -> dict[str, Any]:
        """Plain values of wav, float32 [L] at 16 kHz."""
        found: dict[str, Any] = {"heard": self.recogniser.text(wav)}
        if self.has_speakers and len(wav) >= LEAST_ENCODED_S * RATE:
            found["voice"] = [round(float(x), 5) for x in self._encoder.embed_utterance(_levelled(wav))]
        if self.has_quality:
            found["quality"] = self._quality(wav)
        return found

    @cached_property
    def _encoder(self) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # it imports from an old place of scipy
            from resemblyzer import VoiceEncoder

        return VoiceEncoder("cpu", verbose=False)

    @cached_property
    def _quality_model(self) -> Any:
        _stand_in_for_torchaudio()
        from contextlib import redirect_stdout
        from io import StringIO

        import distillmos

        with redirect_stdout(StringIO()):  # it prints where its weights lie
            model = distillmos.ConvTransformerSQAModel()
        return model.eval()

    def _quality(self, wav: np.ndarray) -> float:
        import torch

        with torch.inference_mode():
            return round(float(self._quality_model(torch.from_numpy(wav)[None])), 3)


def _stand_in_for_torchaudio() -> None:
    """DistillMOS imports torchaudio for its command line alone, and PyPI has none for a CPU build of torch."""
    try:
        import torchaudio  # noqa: F401
    except (ImportError, OSError):
        stand_in, transforms = ModuleType("torchaudio"), ModuleType("torchaudio.transforms")
        transforms.MFCC = transforms.Resample = object  # type: ignore[attr-defined]
        stand_in.transforms = transforms  # type: ignore[attr-defined]
        sys.modules["torchaudio"], sys.modules["torchaudio.transforms"] = stand_in, transforms


def _levelled(wav: np.ndarray) -> np.ndarray:
    """At -30 dB of full scale, as the speaker encoder was trained."""
    power = float(np.square(wav).mean(dtype=np.float64))
    return wav * np.float32(10 ** (-30 / 20) / max(1e-6, power**0.5))


def listen(
    clips: Sequence[Clip],
    listeners: Listeners,
    *,
    hash_of: Callable[[Path], str],
    index: JsonIndex,
    progress: Callable[[int, int], None] | None = None,
) -> list[Heard]:
    """What is heard in each clip, in order. What was heard is kept even if this is interrupted."""
    found: list[dict[str, Any]] = []
    try:
        for clip in clips:
            found.append(_hear(clip.path, listeners, hash_of=hash_of, index=index))
            index.write_now_and_then()
            if progress is not None:
                progress(len(found), len(clips))
    finally:
        index.write()
    compare = comparison(listeners.language)
    voices = _likenesses([values.get("voice") for values in found], [clip.speaker for clip in clips])
    return [
        Heard(
            heard=values.get("heard"),
            errors=compare(clip.text, values["heard"]) if "heard" in values else None,
            voice=tuple(values["voice"]) if values.get("voice") else None,
            likeness=likeness,
            quality=values.get("quality"),
        )
        for clip, values, likeness in zip(clips, found, voices, strict=True)
    ]


def _hear(path: Path, listeners: Listeners, *, hash_of: Callable[[Path], str], index: JsonIndex) -> dict[str, Any]:
    try:
        key = f"{hash_of(path)};{listeners.key}"
        known = index.get(key)
        if known is not None:
            return known
        recording = read_recording(path)
    except (OSError, UnreadableRecording):  # the other checks have named it
        return {}
    mixed = np.nan_to_num(recording.samples).mean(axis=0)
    found = listeners.hear(soxr.resample(mixed, recording.sampling_rate, RATE).astype(np.float32))
    index.add(key, found)
    return found


def comparison(language: str) -> Callable[[str, str], float]:
    """Character errors of what was heard against a text, as a share of the text: both without case and signs."""
    from jiwer import process_characters
    from whisper_normalizer.basic import BasicTextNormalizer
    from whisper_normalizer.english import EnglishTextNormalizer

    normalise = EnglishTextNormalizer() if language == "en" else BasicTextNormalizer()

    def errors(text: str, heard: str) -> float:
        reference, said = normalise(text.replace("\u0301", "")).strip(), normalise(heard).strip()
        if not any(char.isalnum() for char in reference):
            return float(any(char.isalnum() for char in said))
        counted = process_characters(reference, said)
        return (counted.substitutions + counted.deletions + counted.insertions) / len(reference)

    return errors


def _likenesses(voices: Sequence[Sequence[float] | None], speakers: Sequence[str]) -> list[float | None]:
    """Cosine of each voice with the middle of its speaker's; None where there is no voice."""
    by_speaker: defaultdict[str, list[np.ndarray]] = defaultdict(list)
    for voice, speaker in zip(voices, speakers, strict=True):
        if voice:
            by_speaker[speaker].append(np.asarray(voice))
    middles = {speaker: _unit(np.median(np.stack(own), axis=0)) for speaker, own in by_speaker.items()}
    return [
        float(_unit(np.asarray(voice)) @ middles[speaker]) if voice else None
        for voice, speaker in zip(voices, speakers, strict=True)
    ]


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / max(1e-9, float(np.linalg.norm(vector)))


# ---- judgement


def check_heard(clips: Sequence[Clip], heard: Sequence[Heard]) -> list[list[Finding]]:
    """What is wrong with each clip by what was heard; all warnings, since listeners err."""
    texts = _wrong_texts(clips, heard)
    likeness_limit = min(OTHER_SPEAKER, _low([h.likeness for h in heard], OTHER_SPEAKER_DEVIATIONS))
    quality_limit = min(POOR, _low([h.quality for h in heard], POOR_DEVIATIONS))
    found: list[list[Finding]] = [[text] if text is not None else [] for text in texts]
    for own, h in zip(found, heard, strict=True):
        if h.likeness is not None and h.likeness < likeness_limit:
            own.append(
                warning(
                    "another speaker",
                    f"the voice is unlike the others of this speaker: {h.likeness:.2f}",
                    "listen who speaks",
                    value=h.likeness,
                    limit=likeness_limit,
                )
            )
        if h.quality is not None and h.quality < quality_limit:
            own.append(
                warning(
                    "poor sound",
                    f"sounds poor: {h.quality:.1f} of 5",
                    "listen; record it again, or drop the line",
                    value=h.quality,
                    limit=quality_limit,
                )
            )
    return found


def _wrong_texts(clips: Sequence[Clip], heard: Sequence[Heard]) -> list[Finding | None]:
    errors = [h.errors for h in heard if h.errors is not None]
    if not errors or float(np.median(errors)) > DEAF:
        return [None] * len(clips)
    return [
        warning(
            "heard otherwise",
            f'heard "{shown(h.heard or "")}" where "{shown(clip.text)}" is written '
            f"({100 * h.errors:.0f} % of the characters)",
            "listen, and correct the text or drop the line",
            value=h.errors,
            limit=HEARD_OTHERWISE,
        )
        if h.errors is not None and h.errors > HEARD_OTHERWISE
        else None
        for clip, h in zip(clips, heard, strict=True)
    ]


def _low(values: Sequence[float | None], deviations: float) -> float:
    """What is far below the middle of values."""
    known = np.array([value for value in values if value is not None])
    if len(known) < 3:
        return -np.inf
    middle = float(np.median(known))
    return middle - deviations * 1.4826 * float(np.median(np.abs(known - middle)))
