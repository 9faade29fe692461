"""A voice ready to speak: weights, hyperparameters, mel statistics and length budget of one checkpoint."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import checkpoint as ckpt
from data_utils import MelStats
from errors import DataError, UserError, report
from hparams import HParams, create_hparams
from model import DecodeLimits, Tacotron2
from run_log import Sample
from text import describe_characters, text_to_sequence, unknown_characters, unknown_phonemes
from text.cleaners import clean
from text.symbols import symbols
from validation import Reference, sample_of, speak

STOP_MEANING = {
    "gate": "stopped by itself",
    "dwell": "the stop gate missed; ended as attention stayed on the last symbol",
    "budget": "did not stop: cut at the length budget of its text",
    "limit": "did not stop: cut at max_decoder_steps",
}


@dataclass(frozen=True)
class Utterance:
    """One text as the voice said it: wav float32 [L], and all there is to see of it."""

    wav: np.ndarray
    sample: Sample

    @property
    def verdict(self) -> str:
        return STOP_MEANING[self.sample.stop_reason]


@dataclass(frozen=True)
class Speaker:
    """`Speaker.load(path).speak(["Hello."])`"""

    model: Tacotron2
    hp: HParams
    stats: MelStats
    limits: DecodeLimits
    step: int | None = None

    @classmethod
    def load(cls, run_or_checkpoint: Path, *, gate_threshold: float | None = None) -> "Speaker":
        """From a run directory (its best checkpoint), a checkpoint, or NVIDIA's weights. UserError if it can't be."""
        path = ckpt.resolve(run_or_checkpoint)
        content = ckpt.read(path)
        if content.get("format") == ckpt.FORMAT:
            return cls._of_ours(ckpt.load(path), path, gate_threshold)
        return cls._of_nvidias(content, path, gate_threshold)

    @classmethod
    def _of_ours(cls, saved: ckpt.Checkpoint, path: Path, gate_threshold: float | None) -> "Speaker":
        voice = saved.voice
        if list(voice.symbols) != list(symbols):
            raise UserError(
                f"{path} was trained with {len(voice.symbols)} other symbols; this version reads {len(symbols)}"
            )
        hp = HParams.model_validate(dict(voice.hparams))
        r = voice.frames_per_step or hp.n_frames_per_step
        limits = DecodeLimits(
            max_frames=hp.max_decoder_steps * r,
            gate_threshold=hp.gate_threshold if gate_threshold is None else gate_threshold,
            frames_per_symbol=voice.frames_per_symbol,
            budget_offset=voice.budget_offset,
        )
        model = Tacotron2(hp)
        ckpt.load_exactly(model, {"model": saved.model}, path=path)
        model.r = r
        return cls(model.eval(), hp, MelStats(voice.mel_mean, voice.mel_std), limits, saved.step)

    @classmethod
    def _of_nvidias(cls, content: dict, path: Path, gate_threshold: float | None) -> "Speaker":
        hp = create_hparams("normalize_mel=False,dropout_rate=0.5")
        model = Tacotron2(hp)
        ckpt.load_exactly(model, content, path=path)
        limits = DecodeLimits(
            max_frames=hp.max_decoder_steps,
            gate_threshold=hp.gate_threshold if gate_threshold is None else gate_threshold,
        )
        return cls(model.eval(), hp, MelStats(0.0, 1.0), limits)

    def speak(self, texts: Sequence[str], *, seed: int = 1234, n_iter: int = 60) -> list[Utterance]:
        """Each text on its own with the same seed, so that none depends on its neighbours. DataError for bad texts."""
        sequences = read_texts(texts, self.hp.text_cleaners)
        return [self._say(text, ids, seed=seed, n_iter=n_iter) for text, ids in zip(texts, sequences, strict=True)]

    def _say(self, text: str, ids: Sequence[int], *, seed: int, n_iter: int) -> Utterance:
        device = next(self.model.parameters()).device
        decoded = speak(self.model, [ids], self.limits, seed=seed, device=device)[0]
        reference = Reference(text, ids, None)
        sample = sample_of(decoded, reference, self.hp, self.stats, n_iter=n_iter, seed=seed)
        assert sample.wav is not None
        return Utterance(sample.wav, sample)


def read_texts(texts: Sequence[str], cleaner_names: Sequence[str]) -> list[list[int]]:
    """Symbol ids of each text; one DataError for all that can't be read."""
    problems = []
    for text in texts:
        unknown, phonemes = unknown_characters(text, cleaner_names), unknown_phonemes(text)
        if phonemes:
            problems.append(f"{text!r}: {', '.join(phonemes)} in braces is no ARPAbet phoneme; correct it")
        if unknown:
            problems.append(
                f"{text!r}: the voice has no symbol for {', '.join(describe_characters(unknown))}; write it another way"
            )
        elif not clean(text, cleaner_names).strip():
            problems.append(f"{text!r}: there is nothing to say")
    if problems:
        raise DataError(report(problems, headline=f"{len(problems)} of {len(texts)} texts can't be spoken:"))
    return [text_to_sequence(text, cleaner_names) for text in texts]
