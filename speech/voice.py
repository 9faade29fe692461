"""A voice ready to speak: weights, hyperparameters, mel statistics and length budget of one checkpoint."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from audio.mel import mel_spectrogram, require_known_format
from audio.recordings import read_audio
from checkpointing import checkpoint_file
from checkpointing import directory as checkpoint_dir
from checkpointing import weights as checkpoint_weights
from checkpointing.checkpoint_file import Checkpoint
from common.errors import DataError, UserError, format_problems
from common.log import LOG
from corpus.mel_statistics import MelStats
from hparams import HParams, create_hparams
from kernels.backend import why_unsupported
from kernels.packed_weights import InferencePrecision, PrecisionChoice
from model import DecodeLimits, Decoder, Tacotron2, without_training_parts
from modules.style_tokens import StyleTokens
from run_directory.records import Sample
from speech.decoding import Reference, sample_of, speak
from text.front_end import FrontEnd, front_end_of_voice

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
    names: tuple[str, ...] = ()  # whose voices it has, in the order of the table's rows
    front_end: FrontEnd = field(default_factory=FrontEnd.create)

    @classmethod
    def load(
        cls, run_or_checkpoint: Path, *, gate_threshold: float | None = None, precision: PrecisionChoice = "fp32"
    ) -> "Speaker":
        """From a run directory (its best checkpoint), a checkpoint, or NVIDIA's weights. UserError if it can't be.

        precision: of the decoder's LSTM weights; where this machine can't gain by it, fp32, and a warning says so.
        """
        path = checkpoint_dir.resolve(run_or_checkpoint)
        content = checkpoint_file.read(path)
        if content.get("format") == checkpoint_file.FORMAT:
            speaker = cls._of_ours(checkpoint_file.load(path), path, gate_threshold)
        else:
            speaker = cls._of_nvidias(content, path, gate_threshold)
        decoder = speaker.model.decoder
        decoder.prepare_for_inference(usable(precision, decoder))
        return speaker

    @classmethod
    def _of_ours(cls, saved: Checkpoint, path: Path, gate_threshold: float | None) -> "Speaker":
        voice = saved.voice
        require_known_format(voice.mel_fingerprint, where=path)
        hp = HParams.model_validate(dict(voice.hparams))
        r = voice.frames_per_step or hp.n_frames_per_step
        limits = DecodeLimits(
            max_frames=hp.max_decoder_steps * r,
            gate_threshold=hp.gate_threshold if gate_threshold is None else gate_threshold,
            frames_per_symbol=voice.frames_per_symbol,
        )
        names = tuple(voice.speakers)
        model = Tacotron2(without_training_parts(hp), n_speakers=len(names))
        checkpoint_weights.load_exactly(model, {"model": saved.model}, path=path)
        model.r = r
        front_end = front_end_of_voice(voice.front_end, symbols=voice.symbols, cleaners=hp.text_cleaners)
        if voice.front_end and (changed := front_end.changed_packages(voice.front_end)):
            LOG.warning("texts may be read otherwise than in training: %s", "; ".join(changed))
        return cls(model.eval(), hp, MelStats(voice.mel_mean, voice.mel_std), limits, saved.step, names, front_end)

    @classmethod
    def _of_nvidias(cls, content: dict, path: Path, gate_threshold: float | None) -> "Speaker":
        hp = create_hparams("normalize_mel=False,dropout_rate=0.5")
        model = Tacotron2(hp)
        checkpoint_weights.load_exactly(model, content, path=path)
        limits = DecodeLimits(
            max_frames=hp.max_decoder_steps,
            gate_threshold=hp.gate_threshold if gate_threshold is None else gate_threshold,
        )
        return cls(model.eval(), hp, MelStats(0.0, 1.0), limits)

    def speak(
        self,
        texts: Sequence[str],
        *,
        seed: int = 1234,
        n_iter: int = 60,
        name: str | None = None,
        style: Tensor | None = None,
        enhanced: bool = False,
    ) -> list[Utterance]:
        """Each text on its own with the same seed, so that none depends on its neighbours. DataError for bad texts.

        name: whose voice. style [1, heads, tokens]: see `style_from` and `style_token`; without, each text its own.
        enhanced: cleaned by enhancement.py. Judging hears the voice as it is.
        """
        references = self.references_for(texts, name=name)
        return [self._say(each, seed=seed, n_iter=n_iter, style=style, enhanced=enhanced) for each in references]

    def references_for(self, texts: Sequence[str], *, name: str | None = None) -> list[Reference]:
        """The texts as the voice reads them, each to be said by that speaker. DataError for bad texts."""
        row, table = self.row_of(name), self.front_end.table
        read = zip(texts, read_texts(texts, self.front_end), strict=True)
        return [Reference(text, ids, table.shown(ids), None, row) for text, ids in read]

    def _say(self, reference: Reference, *, seed: int, n_iter: int, style: Tensor | None, enhanced: bool) -> Utterance:
        decoded = speak(self.model, [reference], self.limits, seed=seed, device=self.device, style=style)[0]
        sample = sample_of(decoded, reference, self.hp, self.stats, n_iter=n_iter, seed=seed, enhanced=enhanced)
        assert sample.wav is not None
        return Utterance(sample.wav, sample)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def row_of(self, name: str | None) -> int | None:
        """The row of a speaker; UserError if the voice doesn't have that one, or has several and none is named."""
        if name is None and len(self.names) <= 1:
            return 0 if self.names else None
        if not self.names:
            raise UserError(f"--speaker {name}: this voice was trained without speaker names; leave --speaker out")
        if name is None:
            raise UserError(f"this voice has several speakers; choose one: --speaker {' | '.join(self.names)}")
        if name not in self.names:
            raise UserError(f"--speaker {name}: no such speaker; the voice has {', '.join(self.names)}")
        return self.names.index(name)

    @torch.no_grad()
    def style_from(self, recording: Path) -> Tensor:
        """The style of a recording: [1, heads, tokens]. UserError without style tokens, DataError if unreadable."""
        tokens = self._tokens("--style-from")
        mel = mel_spectrogram(torch.from_numpy(read_audio(recording, self.hp)), self.hp)
        mel = ((mel - self.stats.mean) / self.stats.std).to(self.device)
        return tokens.weights(mel.unsqueeze(0), torch.tensor([mel.size(1)], device=self.device))

    def style_token(self, index: int, weight: float) -> Tensor:
        """One token alone: [1, heads, tokens]. UserError without style tokens, or if there is no such one."""
        tokens = self._tokens("--style-token")
        if not 0 <= index < self.hp.token_num:
            raise UserError(f"--style-token {index}: the voice has the tokens 0 to {self.hp.token_num - 1}")
        return tokens.single_token_style(index, weight)

    def _tokens(self, switch: str) -> StyleTokens:
        if self.model.gst is None:
            raise UserError(f"{switch}: this voice has no style tokens; train one with use_gst=True")
        return self.model.gst


def usable(wanted: PrecisionChoice, decoder: Decoder) -> InferencePrecision:
    """That precision, or fp32 with a warning that says why; "auto" takes the fastest that can be used."""
    if wanted == "fp32":
        return "fp32"
    for precision in ("int8", "bf16") if wanted == "auto" else (wanted,):
        lacking = why_unsupported(decoder, precision)
        if lacking is None:
            return precision
    LOG.warning("precision=%s spoken_in=fp32: %s", wanted, lacking)
    return "fp32"


def read_texts(texts: Sequence[str], front_end: FrontEnd) -> list[Sequence[int]]:
    """Symbol ids [T_text] of each text; one DataError for all that can't be read."""
    readings = front_end.read(texts)
    problems = [f"{r.text!r}: {found.detail}" for r in readings for found in r.problems]
    n_bad = sum(bool(reading.problems) for reading in readings)
    if problems:
        raise DataError(format_problems(problems, headline=f"{n_bad} of {len(texts)} texts can't be spoken:"))
    return [reading.ids for reading in readings]
