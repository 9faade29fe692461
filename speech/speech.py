"""What a voice made of a text: the sound, and when what is said."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from audio.recordings import write_wav
from common.files import explain_write_errors, write_atomic
from speech.narration import NarratedPart
from speech.subtitles import cues_of, srt, textgrid
from speech.timing import TimedText


@dataclass(frozen=True)
class Speech:
    """`Voice.synthesize`'s result. parts: sentences as they were said, each with its attention and stop reason."""

    parts: tuple[NarratedPart, ...]
    sampling_rate: int

    @cached_property
    def wav(self) -> np.ndarray:
        """float32 [L] in [-1, 1]."""
        return np.concatenate([part.wav for part in self.parts])

    @property
    def duration_s(self) -> float:
        return len(self.wav) / self.sampling_rate

    @property
    def words(self) -> list[TimedText]:
        """Every word with its beginning and end in seconds."""
        return [word for part in self.parts for word in part.words]

    @property
    def doubts(self) -> list[str]:
        """What is doubtful about which sentence; empty unless it was examined."""
        return [f"{part.part.text!r}: {doubt}" for part in self.parts for doubt in part.examination.doubts]

    def save(self, path: str | Path) -> None:
        """As 16-bit wav. UserError if the disk refuses."""
        with explain_write_errors(str(path), next_step="free space there, or name another place"):
            write_wav(Path(path), self.wav, self.sampling_rate)

    def save_subtitles(self, path: str | Path) -> None:
        """As .srt, or as .TextGrid with sentences, words and symbols, by the suffix."""
        track = Track.of(self.parts)
        with explain_write_errors(str(path), next_step="free space there, or name another place"):
            write_atomic(Path(path), track.textgrid() if Path(path).suffix.lower() == ".textgrid" else track.srt())


@dataclass
class Track:
    """Times of a speech, gathered part by part; the sounds need not be kept for it."""

    sentences: list[TimedText]
    words: list[TimedText]
    symbols: list[TimedText]
    cues: list[TimedText]
    duration_s: float = 0.0

    @classmethod
    def of(cls, parts: Sequence[NarratedPart] = ()) -> "Track":
        track = cls([], [], [], [])
        for part in parts:
            track.add(part)
        return track

    def add(self, part: NarratedPart) -> None:
        self.duration_s = part.start_s + len(part.wav) / part.sampling_rate
        if part.utterance is None:
            return
        words = part.words
        self.sentences.append(part.sentence)
        self.words += words
        self.symbols += part.symbols
        self.cues += cues_of(part.sentence, words)

    def srt(self) -> str:
        return srt(self.cues)

    def textgrid(self) -> str:
        tiers = {"sentences": self.sentences, "words": self.words, "symbols": self.symbols}
        return textgrid(tiers, duration_s=self.duration_s)
