"""Free-running evaluation of a voice on texts with recordings: alignment, stop, mel distance, word errors."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from audio.mel import mel_spectrogram
from audio.recordings import read_audio, write_wav
from common.errors import DataError, format_problems
from common.files import explain_write_errors
from corpus.demo.builder import ensure_demo_corpus
from corpus.filelists import Utterance, data_error, read_filelist
from corpus.readings import with_readings
from kernels.packed_weights import PrecisionChoice
from monitoring.plots import save_png
from monitoring.progress_bar import counted_progress
from monitoring.sample_files import figure_of
from run_directory.records import Sample
from speech import metrics
from speech.decoding import assess
from speech.vocoders.vocoder import GRIFFIN_LIM
from speech.voice import Speaker

DRAWN_TEXTS = 4


@dataclass(frozen=True)
class Judgement:
    """Means over all texts by name, and one row for each text."""

    step: int | None
    summary: dict[str, float]
    rows: list[dict[str, Any]]


@dataclass(frozen=True)
class Recording:
    """One utterance as it was recorded."""

    utterance: Utterance
    wav: np.ndarray  # [L]
    mel: np.ndarray  # [n_mels, T_mel] log-mel


@dataclass(frozen=True)
class Spoken:
    """One utterance as the voice said it."""

    recording: Recording
    seed: int
    wav: np.ndarray  # [L]
    sample: Sample


def judge(
    run_or_checkpoint: Path,
    *,
    filelist: Path | None,
    dataset_path: Path | None,
    output: Path,
    n: int,
    seeds: Sequence[int],
    with_asr: bool,
    precision: PrecisionChoice = "fp32",
    vocoder: str = GRIFFIN_LIM,
) -> Judgement:
    """Speaks the first n texts of a filelist once with each seed, and compares with the recordings.

    The files of the first seed go to `output`; UserError if the disk refuses them. The prenet's dropout makes every
    seed another reading, so a mean over several tells more than one.
    """
    speaker = Speaker.load(run_or_checkpoint, precision=precision, vocoder=vocoder)
    recordings = read_recordings(speaker, read_utterances(speaker, filelist, dataset_path)[:n])
    with writing_to(output):  # a place that can't be written is refused now, not after minutes of speaking
        output.mkdir(parents=True, exist_ok=True)
    spoken = speak_all(speaker, recordings, seeds)
    with writing_to(output):
        write_files(spoken[: len(recordings)], output)
    judged = [assess(s.sample, speaker.stats.std) for s in spoken]
    summary = metrics.summarise(judged)
    rows = [
        {"id": s.recording.utterance.utterance_id, "text": s.sample.text, "seed": s.seed, **asdict(j)}
        for s, j in zip(spoken, judged, strict=True)
    ]
    if with_asr:
        summary |= word_error_rates(spoken, recordings, speaker, rows)
    return Judgement(speaker.step, summary, rows)


def writing_to(output: Path) -> AbstractContextManager[None]:
    """A disk that refuses is the user's to mend: UserError."""
    return explain_write_errors(f"-o {output}", next_step="free space there, or name another place")


def read_utterances(speaker: Speaker, filelist: Path | None, dataset_path: Path | None) -> Sequence[Utterance]:
    """The lines of a filelist; without one the demo corpus' test list, which nothing is tuned on."""
    if filelist is None:
        corpus = ensure_demo_corpus(progress=counted_progress("speaking the demo corpus"))
        filelist, dataset_path = corpus.test_files, corpus.root
    elif not filelist.is_file():
        raise DataError(f"--filelist {filelist}: no such file")
    listed = read_filelist(filelist, dataset_path=dataset_path or filelist.parent)
    (found,), _ = with_readings([listed], speaker.front_end)
    if found.problems:
        raise data_error(found.problems)
    return found.utterances


def read_recordings(speaker: Speaker, utterances: Sequence[Utterance]) -> list[Recording]:
    wavs = [read_audio(u.audio_path, speaker.hp) for u in utterances]
    mels = [mel_spectrogram(torch.from_numpy(wav), speaker.hp).numpy() for wav in wavs]
    return [Recording(*row) for row in zip(utterances, wavs, mels, strict=True)]


def speak_all(speaker: Speaker, recordings: Sequence[Recording], seeds: Sequence[int]) -> list[Spoken]:
    """All texts with the first seed, then all with the next."""
    named = list(zip(recordings, speakers_of(speaker, [r.utterance for r in recordings]), strict=True))
    show, spoken = counted_progress("speaking"), []
    for seed, (recording, name) in product(seeds, named):
        said = speaker.speak([recording.utterance.text], seed=seed, name=name)[0]
        spoken.append(Spoken(recording, seed, said.wav, replace(said.sample, target_mel=recording.mel)))
        show(len(spoken), len(seeds) * len(recordings))
    return spoken


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


def write_files(spoken: Sequence[Spoken], output: Path) -> None:
    """All sounds, and pictures of the first few."""
    for i, s in enumerate(spoken):
        name = s.recording.utterance.utterance_id
        write_wav(output / f"{name}.wav", s.wav, s.sample.sampling_rate)
        if i < DRAWN_TEXTS:
            save_png(figure_of(s.sample), output / f"{name}.png")


def word_error_rates(
    spoken: Sequence[Spoken], recordings: Sequence[Recording], speaker: Speaker, rows: Sequence[dict[str, Any]]
) -> dict[str, float]:
    """Of the voice, of copy-synthesis (recorded mels through the same vocoder: the voice's ceiling), of recordings."""
    from speech.asr import cer, transcribe, wer

    said, recorded = [s.sample.text for s in spoken], [r.utterance.text for r in recordings]
    copies = [speaker.vocoder(torch.from_numpy(r.mel)).numpy() for r in recordings]
    sources: dict[str, tuple[list[str], list[np.ndarray]]] = {
        "": (said, [s.wav for s in spoken]),
        "_copy_synthesis": (recorded, copies),
        "_recordings": (recorded, [r.wav for r in recordings]),
    }
    rates = {}
    for name, (texts, wavs) in sources.items():
        heard = transcribe(wavs, sampling_rate=speaker.hp.sampling_rate)
        rates[f"wer{name}"], rates[f"cer{name}"] = wer(texts, heard), cer(texts, heard)
        for row, text in zip(rows, heard, strict=False):  # the first seed's rows carry what recordings sounded like
            row[f"heard{name}"] = text
    return rates
