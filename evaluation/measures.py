"""Marks of single clips, by name: each judge adds its own."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from audio.mel import mel_spectrogram
from evaluation.intervals import Share
from evaluation.prosody import Pitch, compare, speaking_rate
from evaluation.sounds import RECORDINGS, Clip, Source
from hparams import AudioParams
from listeners import words
from listeners.likeness import SpeakerLikeness, middle, unit
from listeners.quality import SoundQuality
from listeners.recogniser import Recogniser
from speech.attention_words import word_faults
from speech.decoding import assess
from speech.metrics import FreeRunning, bounded_distance, duration_error

Progress = Callable[[int, int], None]


@dataclass
class Marked:
    """A clip and what was found of it. heard: by the recogniser, where one was asked."""

    clip: Clip
    shares: dict[str, Share] = field(default_factory=dict)
    heard: str | None = None
    free_running: FreeRunning | None = None

    def add(self, **values: float | None) -> None:
        self.shares |= {name: Share(value) for name, value in values.items() if value is not None}

    def add_rate(self, name: str, errors: float, n: float) -> None:
        self.shares[name] = Share(errors, n)


def mark_attention(marked: Sequence[Marked], *, std: float) -> None:
    """How free-running decoding went, of clips that a network said."""
    for one in marked:
        sample = one.clip.sample
        if sample is None:
            continue
        one.free_running = found = assess(sample, std)
        one.add(
            alignment=found.alignment, coverage=found.coverage, monotonicity=found.monotonicity,
            sharpness=found.sharpness, diagonality=found.diagonality, end_reached=float(found.end_reached),
            stop_rate=float(found.stopped), duration_error=duration_error(found.duration_ratio),
            mel_distance=bounded_distance(found.mel_distance),
        )  # fmt: skip
        faults = word_faults(sample.alignment, sample.symbols)
        one.add_rate("skipped_by_attention", len(faults.skipped), faults.n_words)
        one.add_rate("repeated_by_attention", len(faults.repeated), faults.n_words)


def mark_words(marked: Sequence[Marked], recogniser: Recogniser, *, progress: Progress) -> None:
    """Word and character errors, words not heard and words heard twice."""
    language = recogniser.language
    for i, one in enumerate(marked, 1):
        clip, meant = one.clip, one.clip.line.words
        (one.heard,) = recogniser.transcribe([clip.wav], sampling_rate=clip.sampling_rate)
        found = words.word_errors(meant, one.heard, language=language)
        one.add_rate("wer", found.total, found.n_words)
        one.add_rate("cer", *words.character_errors(meant, one.heard, language=language))
        one.add_rate("deleted_words", found.deleted, found.n_words)
        one.add_rate("repeated_words", found.repeated, found.n_words)
        progress(i, len(marked))


def mark_quality(marked: Sequence[Marked], quality: SoundQuality, *, progress: Progress) -> None:
    for i, one in enumerate(marked, 1):
        one.add(**quality.marks(one.clip.wav, sampling_rate=one.clip.sampling_rate))
        progress(i, len(marked))


def mark_likeness(
    by_source: Mapping[str, Sequence[Marked]], likeness: SpeakerLikeness, *, progress: Progress
) -> None:
    """Cosine with the middle of the same speaker's recordings of the other texts."""
    recorded = by_source[RECORDINGS]
    total, done = sum(map(len, by_source.values())), 0
    voices: dict[str, list[np.ndarray | None]] = {}
    for name, marked in by_source.items():
        voices[name] = []
        for one in marked:
            voices[name].append(likeness.voice(one.clip.wav, sampling_rate=one.clip.sampling_rate))
            done += 1
            progress(done, total)
    for name, marked in by_source.items():
        for one, voice in zip(marked, voices[name], strict=True):
            others = [
                theirs
                for other, theirs in zip(recorded, voices[RECORDINGS], strict=True)
                if other.clip.line is not one.clip.line
                and other.clip.line.utterance.speaker == one.clip.line.utterance.speaker
            ]
            centre = middle(others)
            if voice is not None and centre is not None:
                one.add(likeness=float(unit(voice) @ centre))


def mark_prosody(
    by_source: Mapping[str, Sequence[Marked]], audio: AudioParams, symbols: Mapping[str, Sequence[str]], *,
    progress: Progress,
) -> None:  # fmt: skip
    """Pitch, timbre and pace beside the recording. symbols: of each line, by its name."""
    total, done = sum(map(len, by_source.values())), 0
    pitches = {one.clip.line.name: Pitch.of(one.clip.wav, audio) for one in by_source[RECORDINGS]}
    for name, marked in by_source.items():
        for one in marked:
            clip, line = one.clip, one.clip.line
            pitch = pitches[line.name] if name == RECORDINGS else Pitch.of(clip.wav, audio)
            mel = mel_spectrogram(torch.from_numpy(clip.wav), audio).numpy()  # of the sound, vocoder and all
            pace = speaking_rate(symbols[line.name], mel, frame_s=audio.hop_length / audio.sampling_rate)
            one.add(pitch_spread=pitch.spread, symbols_per_s=pace)
            if name != RECORDINGS:
                found = compare(mel, pitch, recorded_mel=line.mel, recorded_pitch=pitches[line.name])
                one.add(
                    cepstral_distortion_db=found.cepstral_distortion_db, pitch_error_cents=found.pitch_error_cents,
                    voicing_error=found.voicing_error,
                )  # fmt: skip
            done += 1
            progress(done, total)


def marked_clips(sources: Sequence[Source]) -> dict[str, list[Marked]]:
    return {source.name: [Marked(clip) for clip in source.clips] for source in sources}
