"""Everybody's sounds of the same texts: voices through vocoders, copy-synthesis through the same, recordings."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import torch

from audio.enhancement import enhance
from audio.mel import MelFingerprint
from audio.mel_sharpening import sharpened
from common.errors import DataError, UserError, format_problems
from corpus.filelists import Utterance
from evaluation.texts import Line
from parallel.devices import explain_no_memory
from run_directory.records import Sample
from speech.decoding import sample_of, speak
from speech.vocoders.vocoder import GriffinLim, Vocoder
from speech.voice import Speaker

RECORDINGS, COPIES = "recordings", "copy-synthesis"


@dataclass(frozen=True)
class Clip:
    """One text as one source says it. sample: what the network did; None where no network spoke."""

    line: Line
    wav: np.ndarray  # [L]
    mel: np.ndarray  # [n_mels, T_mel] log-mel
    sampling_rate: int
    seed: int | None = None
    sample: Sample | None = None


@dataclass(frozen=True)
class Source:
    """One who speaks, under the name that tables and files give it."""

    name: str
    clips: Sequence[Clip]


@dataclass(frozen=True)
class NamedVoice:
    name: str
    speaker: Speaker


def check_alike(voices: Sequence[NamedVoice]) -> None:
    """UserError unless all have the mels of the first, whose recordings they are compared with."""
    first = MelFingerprint.of(voices[0].speaker.hp)
    for voice in voices[1:]:
        if MelFingerprint.of(voice.speaker.hp) != first:
            raise UserError(f"--against {voice.name}: its mels are not those of {voices[0].name}; judge it on its own")


def vocoders_for(speaker: Speaker, names: Sequence[str]) -> dict[str, Vocoder]:
    return {name: speaker.fitting_vocoder(name) for name in names}


def all_sources(
    voices: Sequence[NamedVoice],
    lines: Sequence[Line],
    vocoders: dict[str, Vocoder],
    seeds: Sequence[int],
    progress: Callable[[int, int], None],
    *,
    is_enhanced: bool,
) -> list[Source]:
    """Voices first, in the order given, each through each vocoder; then copy-synthesis, then the recordings.

    is_enhanced: the voices sound as synthesize.py makes them. What was recorded never is.
    """
    spoken = [(voice, speak_lines(voice.speaker, lines, seeds, progress)) for voice in voices]
    sources = []
    for (voice, clips), (vocoder_name, vocoder) in product(spoken, vocoders.items()):
        parts = [voice.name] * (len(voices) > 1) + [vocoder_name] * (len(vocoders) > 1)
        sources.append(
            Source(", ".join(parts) or "voice", [with_sound(clip, vocoder, is_enhanced=is_enhanced) for clip in clips])
        )
    for vocoder_name, vocoder in vocoders.items():
        name = COPIES if len(vocoders) == 1 else f"{COPIES}, {vocoder_name}"
        sources.append(Source(name, [with_sound(recorded(line, vocoder.sampling_rate), vocoder) for line in lines]))
    rate = voices[0].speaker.hp.sampling_rate
    return [*sources, Source(RECORDINGS, [recorded(line, rate) for line in lines])]


def recorded(line: Line, sampling_rate: int) -> Clip:
    return Clip(line, line.wav, line.mel, sampling_rate)


def with_sound(clip: Clip, vocoder: Vocoder, *, is_enhanced: bool = False) -> Clip:
    """The clip's mel as the vocoder says it; Griffin-Lim begins from phases of the clip's seed."""
    if isinstance(vocoder, GriffinLim):
        vocoder = replace(vocoder, seed=clip.seed or 0)
    mel = sharpened(clip.mel) if is_enhanced else clip.mel
    wav = vocoder(torch.from_numpy(mel)).numpy()
    wav = enhance(wav, vocoder.sampling_rate) if is_enhanced else wav
    return replace(clip, wav=wav, sampling_rate=vocoder.sampling_rate)


def speak_lines(
    speaker: Speaker, lines: Sequence[Line], seeds: Sequence[int], progress: Callable[[int, int], None]
) -> list[Clip]:
    """All texts with the first seed, then all with the next; as mels, without sound yet."""
    names = speakers_of(speaker, [line.utterance for line in lines])
    clips = []
    for seed, (line, name) in product(seeds, list(zip(lines, names, strict=True))):
        reference = speaker.references_for([line.text], name=name)[0]
        with explain_no_memory(speaker.device):
            decoded = speak(speaker.model, [reference], speaker.limits, seed=seed, device=speaker.device)[0]
        sample = sample_of(decoded, reference, speaker.hp, speaker.stats, n_iter=0)
        sample = replace(sample, target_mel=line.mel)
        clips.append(Clip(line, np.zeros(0, np.float32), sample.mel, speaker.hp.sampling_rate, seed, sample))
        progress(len(clips), len(seeds) * len(lines))
    return clips


def speakers_of(speaker: Speaker, utterances: Sequence[Utterance]) -> list[str | None]:
    """Whose voice says each line: the one it names. A voice without speakers says them all. DataError if it can't."""
    if not speaker.names:
        return [None] * len(utterances)
    problems = [
        f"{u.where}: {'names no speaker' if u.speaker is None else f'names the speaker {u.speaker!r}'}"
        for u in utterances
        if u.speaker not in speaker.names and (u.speaker is not None or len(speaker.names) > 1)
    ]
    if problems:
        raise DataError(format_problems(problems, headline=f"the voice has the speakers {', '.join(speaker.names)}:"))
    return [u.speaker for u in utterances]
