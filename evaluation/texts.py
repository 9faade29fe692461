"""What is to be said: the lines of a filelist, their recordings, and their words."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from audio.mel import mel_spectrogram
from audio.recordings import read_audio
from common.errors import DataError, format_problems
from common.log import LOG
from corpus.filelists import Utterance, data_error, read_filelist
from corpus.near_files import list_that_is_there
from corpus.readings import with_readings
from evaluation.chosen_list import ChosenList
from hparams import AudioParams
from speech.voice import Speaker
from text.front_end import FrontEnd

PHONEMES = re.compile(r"\{[^{}]*\}")  # as filelists write them, see `text.front_end`


@dataclass(frozen=True)
class Line:
    """One text and its recording. words: as a person writes it, where `text` is what the voice reads."""

    utterance: Utterance
    words: str
    wav: np.ndarray  # [L]
    mel: np.ndarray  # [n_mels, T_mel] log-mel

    @property
    def text(self) -> str:
        return self.utterance.text

    @property
    def name(self) -> str:
        return self.utterance.utterance_id


def read_lines(
    speaker: Speaker, chosen: ChosenList, *, n: int, words: Path | None = None, skip_bad: bool = False
) -> list[Line]:
    """The first n lines. words: a list of the same recordings with their words. skip_bad: leave out what can't be used.

    DataError for what can't be read.
    """
    utterances = _utterances(chosen, speaker.front_end, skip_bad=skip_bad)[:n]
    written = {} if words is None else _words_by_name(words, chosen, skip_bad=skip_bad)
    return [_line(u, written.get(u.utterance_id, u.text), speaker.hp) for u in utterances]


def _utterances(chosen: ChosenList, front_end: FrontEnd, *, skip_bad: bool) -> Sequence[Utterance]:
    if not chosen.path.is_file():
        raise DataError(f"--filelist {chosen.path}: no such file{list_that_is_there(chosen.path)}")
    listed = read_filelist(chosen.path, dataset_path=chosen.dataset_path, data_roots=chosen.data_roots)
    (found,), _ = with_readings([listed], front_end)
    if found.problems and not (skip_bad and found.utterances):
        raise data_error(found.problems)
    if found.problems:
        LOG.warning(
            "--skip-bad-data left out %d lines, the first: %s", len(found.problems), found.problems[0].message
        )
    return found.utterances


def _words_by_name(path: Path, chosen: ChosenList, *, skip_bad: bool) -> Mapping[str, str]:
    if not path.is_file():
        raise DataError(f"--words {path}: no such file{list_that_is_there(path)}")
    listed = read_filelist(path, dataset_path=chosen.dataset_path, data_roots=chosen.data_roots)
    if listed.problems and not skip_bad:
        raise data_error(listed.problems)
    return {u.utterance_id: u.text for u in listed.utterances}


def _line(utterance: Utterance, words: str, audio: AudioParams) -> Line:
    wav = read_audio(utterance.audio_path, audio)
    return Line(utterance, words, wav, mel_spectrogram(torch.from_numpy(wav), audio).numpy())


def check_words(lines: Sequence[Line]) -> None:
    """DataError for lines whose words are not known: a recogniser hears words, and can't be compared with phonemes."""
    unknown = [f"{line.utterance.where}: {line.words[:60]}" for line in lines if PHONEMES.search(line.words)]
    if unknown:
        raise DataError(
            format_problems(
                unknown,
                headline=f"{len(unknown)} texts hold phonemes, and word errors need the words; give them with --words "
                "LIST, a filelist of the same recordings with their words:",
            )
        )
