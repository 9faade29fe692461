"""Free-running evaluation of a voice on texts with recordings: alignment, stop, mel distance, word errors."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import metrics
from audio import griffin_lim, mel_spectrogram, read_audio, write_wav
from console import counted_progress
from demo.corpus import ensure_demo_corpus
from errors import DataError
from filelists import Utterance, data_error, read_filelist
from plots import save_png
from run_log import Sample
from sample_files import figure_of
from speaking import Speaker
from validation import assess

DRAWN_TEXTS = 4


@dataclass(frozen=True)
class Judgement:
    """Means over all texts by name, and one row for each text."""

    step: int | None
    summary: dict[str, float]
    rows: list[dict[str, Any]]


@dataclass(frozen=True)
class Spoken:
    """One text, as the voice said it and as it was recorded."""

    utterance: Utterance
    wav: np.ndarray  # [L] as said
    sample: Sample
    recording: np.ndarray  # [L]
    recorded_mel: np.ndarray  # [n_mels, T_mel] log-mel


def judge(
    run_or_checkpoint: Path,
    *,
    filelist: Path | None,
    dataset_path: Path | None,
    output: Path,
    n: int,
    seed: int,
    with_asr: bool,
) -> Judgement:
    """Speaks the first n texts of a filelist, writes them to `output`, and compares with the recordings."""
    speaker = Speaker.load(run_or_checkpoint)
    spoken = speak_all(speaker, read_utterances(speaker, filelist, dataset_path)[:n], seed=seed)
    write_files(spoken, output)
    judged = [assess(s.sample, speaker.stats.std) for s in spoken]
    summary = metrics.summarise(judged)
    rows = [
        {"id": s.utterance.utterance_id, "text": s.utterance.text, **asdict(j)}
        for s, j in zip(spoken, judged, strict=True)
    ]
    if with_asr:
        summary |= word_error_rates(spoken, speaker, rows)
    return Judgement(speaker.step, summary, rows)


def read_utterances(speaker: Speaker, filelist: Path | None, dataset_path: Path | None) -> Sequence[Utterance]:
    """The lines of a filelist; without one the demo corpus' test list, which nothing is tuned on."""
    if filelist is None:
        corpus = ensure_demo_corpus(progress=counted_progress("speaking the demo corpus"))
        filelist, dataset_path = corpus.test_files, corpus.root
    elif not filelist.is_file():
        raise DataError(f"--filelist {filelist}: no such file")
    found = read_filelist(
        filelist, dataset_path=dataset_path or filelist.parent, cleaner_names=speaker.hp.text_cleaners
    )
    if found.problems:
        raise data_error(found.problems)
    return found.utterances


def speak_all(speaker: Speaker, utterances: Sequence[Utterance], *, seed: int) -> list[Spoken]:
    show, spoken = counted_progress("speaking"), []
    for i, utterance in enumerate(utterances):
        recording = read_audio(utterance.audio_path, speaker.hp)
        mel = mel_spectrogram(torch.from_numpy(recording), speaker.hp).numpy()
        said = speaker.speak([utterance.text], seed=seed)[0]
        spoken.append(Spoken(utterance, said.wav, replace(said.sample, target_mel=mel), recording, mel))
        show(i + 1, len(utterances))
    return spoken


def write_files(spoken: Sequence[Spoken], output: Path) -> None:
    """All sounds, and pictures of the first few."""
    output.mkdir(parents=True, exist_ok=True)
    for i, s in enumerate(spoken):
        write_wav(output / f"{s.utterance.utterance_id}.wav", s.wav, s.sample.sampling_rate)
        if i < DRAWN_TEXTS:
            save_png(figure_of(s.sample), output / f"{s.utterance.utterance_id}.png")


def word_error_rates(spoken: Sequence[Spoken], speaker: Speaker, rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Of the voice, of copy-synthesis (recorded mels through the same vocoder: the voice's ceiling), of recordings."""
    from asr import cer, transcribe, wer

    texts, rate = [s.utterance.text for s in spoken], speaker.hp.sampling_rate
    copies = [griffin_lim(torch.from_numpy(s.recorded_mel), speaker.hp).numpy() for s in spoken]
    rates = {}
    sources: dict[str, list[np.ndarray]] = {
        "": [s.wav for s in spoken],
        "_copy_synthesis": copies,
        "_recordings": [s.recording for s in spoken],
    }
    for name, wavs in sources.items():
        heard = transcribe(wavs, sampling_rate=rate)
        rates[f"wer{name}"], rates[f"cer{name}"] = wer(texts, heard), cer(texts, heard)
        for row, text in zip(rows, heard, strict=True):
            row[f"heard{name}"] = text
    return rates
