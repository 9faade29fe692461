"""What listeners that do not tire say of each clip: the recogniser, the speaker encoder, the quality model.

Each is optional, asked only where its package is installed, and remembered by what the file holds. They take a tenth to
a fifth of the clips' duration each on one core.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from corpus.findings import Finding, shown, warning
from corpus.json_index import JsonIndex
from corpus.recording_files import UnreadableRecording, read_recording
from listeners import likeness, words
from listeners.likeness import SpeakerLikeness, middle, unit
from listeners.packages import INSTALL_WITHOUT_DEPENDENCIES, missing, require
from listeners.quality import DISTILLMOS, SoundQuality
from listeners.recogniser import Recogniser

HEARD_OTHERWISE = 0.5  # character errors; a small recogniser makes under 0.3 of nearly every good clip
DEAF = 0.4  # a median over this says that the recogniser can't judge this corpus
OTHER_SPEAKER = 0.7  # cosine with the middle of the speaker's clips; one voice measured 0.85 and more, two 0.5 to 0.68
OTHER_SPEAKER_DEVIATIONS = 5.0
POOR = 2.5  # of 1 to 5
POOR_DEVIATIONS = 4.0
SECONDS_A_SECOND = {"words": 0.12, "speaker": 0.15, "quality": 0.22}  # CPU, measured on one core


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

    def __init__(self, language: str, *, folder: Path | None = None) -> None:
        """folder: a recogniser of the user's. UserError where nobody can hear the words."""
        require(words.PACKAGES, purpose="comparing texts with what is heard")
        self.recogniser = Recogniser(language, folder)
        self.recogniser.check()
        self.likeness = None if missing(likeness.PACKAGES) else SpeakerLikeness()
        self.quality = None if missing(DISTILLMOS) else SoundQuality()

    @property
    def missing(self) -> list[str]:
        said = []
        if self.likeness is None:
            said.append(f"other speakers are not looked for: {INSTALL_WITHOUT_DEPENDENCIES}")
        if self.quality is None:
            said.append(f"the quality of sound is not judged: {INSTALL_WITHOUT_DEPENDENCIES}")
        return said

    def estimated_s(self, sound_s: float) -> float:
        """Seconds that listening to so much sound takes about, on one core."""
        asked = {"words": True, "speaker": self.likeness is not None, "quality": self.quality is not None}
        return sound_s * sum(SECONDS_A_SECOND[name] for name, is_asked in asked.items() if is_asked)

    @property
    def key(self) -> str:
        return f"{self.recogniser.key};{self.likeness is not None:d}{self.quality is not None:d}"

    def hear(self, wav: np.ndarray, *, sampling_rate: int) -> dict[str, Any]:
        """Plain values of wav, float32 [L]."""
        found: dict[str, Any] = {"heard": self.recogniser.transcribe([wav], sampling_rate=sampling_rate)[0]}
        voice = None if self.likeness is None else self.likeness.voice(wav, sampling_rate=sampling_rate)
        if voice is not None:
            found["voice"] = [round(float(x), 5) for x in voice]
        if self.quality is not None:
            found["quality"] = round(self.quality.distillmos(wav, sampling_rate=sampling_rate), 3)
        return found


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
    language = listeners.recogniser.language
    voices = _likenesses([values.get("voice") for values in found], [clip.speaker for clip in clips])
    return [
        Heard(
            heard=values.get("heard"),
            errors=error_share(clip.text, values["heard"], language=language) if "heard" in values else None,
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
    found = listeners.hear(mixed, sampling_rate=recording.sampling_rate)
    index.add(key, found)
    return found


def error_share(text: str, heard: str, *, language: str) -> float:
    """Character errors as a share of the text, both without case and signs.

    Of a text that has nothing else: 0 if nothing was heard, 1 if something was.
    """
    if not _is_said(text, language):
        return float(_is_said(heard, language))
    errors, n = words.character_errors(text, heard, language=language)
    return errors / n


def _is_said(text: str, language: str) -> bool:
    return any(char.isalnum() for char in words.normalise(text, language=language))


def _likenesses(voices: Sequence[Sequence[float] | None], speakers: Sequence[str]) -> list[float | None]:
    """Cosine of each voice with the middle of its speaker's; None where there is no voice."""
    by_speaker: defaultdict[str, list[np.ndarray | None]] = defaultdict(list)
    known = [np.asarray(voice) if voice else None for voice in voices]
    for voice, speaker in zip(known, speakers, strict=True):
        by_speaker[speaker].append(voice)
    middles = {speaker: middle(own) for speaker, own in by_speaker.items()}
    return [
        float(unit(voice) @ centre) if voice is not None and (centre := middles[speaker]) is not None else None
        for voice, speaker in zip(known, speakers, strict=True)
    ]


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
