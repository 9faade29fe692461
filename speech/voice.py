"""A voice ready to speak: weights, hyperparameters, mel statistics and length budget of one checkpoint.

    voice = Voice.load("output", vocoder="universal")
    voice.synthesize("Hello there. And more.").save("hello.wav")
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from audio.enhancement import Enhanced, enhanced
from audio.mel import MelFingerprint, mel_spectrogram, require_known_format
from audio.mel_sharpening import sharpened
from audio.recordings import read_audio
from checkpointing import checkpoint_file, exported_voice
from checkpointing import directory as checkpoint_dir
from checkpointing import weights as checkpoint_weights
from checkpointing.checkpoint_file import Checkpoint
from common.errors import DataError, UserError, format_problems
from common.log import LOG
from common.threads import keep_to_share
from corpus.mel_statistics import MelStats
from hparams import HParams, create_hparams
from kernels.backend import why_unsupported
from kernels.packed_weights import InferencePrecision, PrecisionChoice
from model import Decoded, DecodeLimits, Decoder, Tacotron2, without_training_parts
from modules.style_tokens import StyleTokens
from parallel.devices import device_of, explain_no_memory
from speech.decoding import Reference, sample_of, sound_of, speak
from speech.known_symbols import KnownSymbols
from speech.long_text import Part, Pauses, split_text
from speech.narration import Examine, NarratedPart, narrate
from speech.speech import Speech
from speech.tempo import at_speed, check_speed
from speech.utterance import SynthesizedUtterance
from speech.vocoders.vocoder import GRIFFIN_LIM, Vocoder, VocoderPrecisionChoice, load_vocoder
from text.front_end import FrontEnd, excerpt, front_end_of_voice

LONGEST_PART = 200  # characters, of voices that do not say how long their training texts were
LEAST_PART = 40  # however short those were


@dataclass(frozen=True)
class Manner:
    """How a text is said.

    speaker: whose voice. style [1, heads, tokens]: see `Voice.style_from` and `Voice.style_token`; without, each text
    its own. enhanced: by audio/mel_sharpening.py and audio/enhancement.py. n_iter: of Griffin-Lim.
    """

    speaker: str | None = None
    style: Tensor | None = None
    speed: float = 1.0
    enhanced: bool = True
    n_iter: int = 60


@dataclass(frozen=True)
class Voice:
    """`Voice.load(path).synthesize("Hello.")`"""

    model: Tacotron2
    hp: HParams
    stats: MelStats
    limits: DecodeLimits
    step: int | None = None
    names: tuple[str, ...] = ()  # whose voices it has, in the order of the table's rows
    front_end: FrontEnd = field(default_factory=FrontEnd.create)
    known: KnownSymbols = KnownSymbols()
    longest_text: int | None = None  # symbols of the longest training texts
    chosen_vocoder: Vocoder | None = None

    @classmethod
    def load(
        cls,
        run_or_checkpoint: str | Path,
        *,
        gate_threshold: float | None = None,
        prenet_dropout: float | None = None,
        precision: PrecisionChoice = "fp32",
        vocoder: str | Path = GRIFFIN_LIM,
        max_seconds: float | None = None,
        device: str = "auto",
    ) -> "Voice":
        """From a run directory (its best checkpoint), a checkpoint, an exported voice, or NVIDIA's weights.

        UserError if it can't be.

        prenet_dropout: in place of the voice's own rate. precision: of the decoder's LSTM weights; where this machine
        can't gain by it, fp32, and a warning says so. vocoder: griffin-lim, universal, lj, or a generator's file.
        max_seconds: in place of max_decoder_steps. device: cpu, cuda, cuda:1 and so on, of the network and a neural
        vocoder; auto is the GPU where there is one.
        """
        _check_threshold(gate_threshold)
        keep_to_share()
        place = device_of(device)
        path = checkpoint_dir.resolve(Path(run_or_checkpoint))
        if exported_voice.is_exported(path):
            voice = cls._of_ours(exported_voice.read_voice(path), path, gate_threshold)
        elif (content := checkpoint_file.read(path)).get("format") == checkpoint_file.FORMAT:
            voice = cls._of_ours(checkpoint_file.load(path), path, gate_threshold)
        else:
            voice = cls._of_nvidias(content, path, gate_threshold)
        with explain_no_memory(place):
            decoder = voice.model.to(place).decoder
            if prenet_dropout is not None:
                decoder.prenet.speaking_dropout = prenet_dropout
            decoder.prepare_for_inference(usable(precision, decoder))
            if str(vocoder) != GRIFFIN_LIM:
                voice = replace(voice, chosen_vocoder=voice.fitting_vocoder(vocoder))
        return voice if max_seconds is None else voice.at_most(max_seconds)

    @classmethod
    def _of_ours(cls, saved: Checkpoint, path: Path, gate_threshold: float | None) -> "Voice":
        voice = saved.voice
        require_known_format(voice.mel_fingerprint, where=path)
        hp = hparams_of(voice.hparams, path)
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
        known = KnownSymbols.of(voice.symbol_counts, model.embedding.weight)
        stats = MelStats(voice.mel_mean, voice.mel_std)
        return cls(model.eval(), hp, stats, limits, saved.step, names, front_end, known, voice.longest_text)

    @classmethod
    def _of_nvidias(cls, content: dict, path: Path, gate_threshold: float | None) -> "Voice":
        hp = create_hparams("normalize_mel=False,dropout_rate=0.5")
        model = Tacotron2(hp)
        checkpoint_weights.load_exactly(model, content, path=path)
        limits = DecodeLimits(
            max_frames=hp.max_decoder_steps,
            gate_threshold=hp.gate_threshold if gate_threshold is None else gate_threshold,
        )
        known = KnownSymbols.of(None, model.embedding.weight)
        return cls(model.eval(), hp, MelStats(0.0, 1.0), limits, known=known)

    def at_most(self, seconds: float) -> "Voice":
        """The same voice with another limit of one part's length, in place of max_decoder_steps."""
        if not 0 < seconds < float("inf"):
            raise UserError(f"--max-seconds {seconds:g}: must be a positive number of seconds")
        n_frames = max(1, round(seconds / self.frame_s))
        return replace(self, limits=replace(self.limits, max_frames=n_frames))

    @property
    def sampling_rate(self) -> int:
        return self.hp.sampling_rate

    @property
    def frame_s(self) -> float:
        return self.hp.hop_length / self.hp.sampling_rate

    @cached_property
    def vocoder(self) -> Vocoder:
        return self.chosen_vocoder or self.fitting_vocoder(GRIFFIN_LIM)

    def fitting_vocoder(self, name_or_path: str | Path, *, precision: VocoderPrecisionChoice = "auto") -> Vocoder:
        """A vocoder for its mels, where the voice itself computes. UserError as `load_vocoder`."""
        return load_vocoder(name_or_path, MelFingerprint.of(self.hp), device=self.device, precision=precision)

    @property
    def longest_part(self) -> int:
        """Characters that it is asked to say in one go at most."""
        return LONGEST_PART if self.longest_text is None else max(self.longest_text, LEAST_PART)

    def synthesize(
        self,
        text: str,
        *,
        seed: int = 1234,
        manner: Manner | None = None,
        examine: Examine | None = None,
        attempts: int = 1,
    ) -> Speech:
        """A text of any length, said sentence by sentence. DataError for what can't be read."""
        narrated = self.narrate(self.parts_of(text), seed=seed, manner=manner, examine=examine, attempts=attempts)
        return Speech(tuple(narrated), self.sampling_rate)

    def parts_of(self, text: str, *, pauses: Pauses | None = None) -> list[Part]:
        """The sentences of a text and the silence between them."""
        parts = split_text(text, language=self.front_end.language.code, longest=self.longest_part, pauses=pauses)
        # a text without words is left to the front end, which says what is wrong with it
        return parts if any(part.text for part in parts) else [Part(text.strip() or " ", 0.0)]

    def narrate(
        self,
        parts: Sequence[Part],
        *,
        references: Sequence[Reference] | None = None,
        seed: int = 1234,
        manner: Manner | None = None,
        batch_size: int = 1,
        examine: Examine | None = None,
        attempts: int = 1,
    ) -> Iterator[NarratedPart]:
        """Each part as soon as it is said; see `narration.narrate`. What can't be read is a DataError at once.

        references: the parts that have words, where they were read before.
        """
        manner = manner or Manner(enhanced=self.hp.use_audio_quality_enhancement)
        check_speed(manner.speed)
        if references is None:
            spoken = [part for part in parts if part.text]
            texts, places = [part.text for part in spoken], places_of(spoken)
            references = self.references_for(texts, name=manner.speaker, places=places)
        self.check_lengths(references)

        def say(batch: Sequence[Reference], seed: int) -> list[SynthesizedUtterance]:
            return self._say(batch, seed=seed, manner=manner)

        return narrate(
            parts, references, say, sampling_rate=self.sampling_rate, seed=seed, batch_size=batch_size,
            examine=examine, attempts=attempts,
        )  # fmt: skip

    def speak(
        self,
        texts: Sequence[str],
        *,
        seed: int = 1234,
        n_iter: int = 60,
        name: str | None = None,
        style: Tensor | None = None,
        enhanced: bool = False,
    ) -> list[SynthesizedUtterance]:
        """Each text in one go with the same seed, so that none depends on its neighbours. DataError for bad texts.

        style [1, heads, tokens], as `style_from` gives it.

        name: whose voice. Judging hears the voice as it is, hence not enhanced.
        """
        manner = Manner(speaker=name, style=style, enhanced=enhanced, n_iter=n_iter)
        references = self.references_for(texts, name=name)
        return [self._say([each], seed=seed, manner=manner)[0] for each in references]

    def references_for(
        self, texts: Sequence[str], *, name: str | None = None, places: Sequence[str] | None = None
    ) -> list[Reference]:
        """The texts as the voice reads them, each to be said by that speaker. DataError for bad texts.

        places: where each text stands, for messages.
        """
        row, table = self.row_of(name), self.front_end.table
        ids_of = read_texts(texts, self.front_end, places=places)
        self.known.check(ids_of, texts, table)
        return [
            Reference(text, ids, table.shown(ids), None, row) for text, ids in zip(texts, ids_of, strict=True)
        ]

    def check_lengths(self, references: Sequence[Reference]) -> None:
        """DataError where a text needs more time than the voice gives any."""
        # the budget of a text is half again what the slowest of its length took
        needed = [self.limits.frames_per_symbol / 1.5 * len(reference.ids) for reference in references]
        longest = max(needed, default=0.0)
        if longest <= self.limits.max_frames:
            return
        text = references[needed.index(longest)].text
        raise DataError(
            f"{excerpt(text)!r} takes about {longest * self.frame_s:.1f} s, and the voice stops after "
            f"{self.limits.max_frames * self.frame_s:.1f} s; leave out --no-split, or set --max-seconds "
            f"{1.5 * longest * self.frame_s:.1f}"
        )

    def _say(self, references: Sequence[Reference], *, seed: int, manner: Manner) -> list[SynthesizedUtterance]:
        """All in one batch, so that what a seed gives depends on who else is in it."""
        style = manner.style
        if style is not None and len(references) > 1:
            style = style.expand(len(references), -1, -1)
        with explain_no_memory(self.device):
            decoded = speak(self.model, references, self.limits, seed=seed, device=self.device, style=style)
            return [self._sounded(*pair, seed=seed, manner=manner) for pair in zip(decoded, references, strict=True)]

    def _sounded(
        self, decoded: Decoded, reference: Reference, *, seed: int, manner: Manner
    ) -> SynthesizedUtterance:
        decoded = replace(decoded, mel=at_speed(decoded.mel, manner.speed))
        sample = sample_of(decoded, reference, self.hp, self.stats, n_iter=0)
        mel = sharpened(sample.mel) if manner.enhanced else sample.mel
        wav = sound_of(mel, self.vocoder, n_iter=manner.n_iter, seed=seed)
        sound = enhanced(wav, self.sampling_rate) if manner.enhanced else Enhanced(wav)
        return SynthesizedUtterance(
            sound.wav,
            replace(sample, wav=sound.wav),
            step_s=self.model.r * self.frame_s / manner.speed,
            cut_before_s=sound.n_cut_before / self.sampling_rate,
            gain=sound.gain,
            seed=seed,
        )

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


def hparams_of(kept: Mapping[str, Any], path: Path) -> HParams:
    """Those a voice was trained with. UserError where this version doesn't know one of them."""
    try:
        return HParams.model_validate(dict(kept))
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise UserError(f"{path} was made by another version of this program ({found}); use that one") from error


def usable(wanted: PrecisionChoice, decoder: Decoder) -> InferencePrecision:
    """That precision, or fp32 with a warning that says why; "auto" takes the fastest that can be used."""
    if wanted == "fp32":
        return "fp32"
    for precision in ("int8", "bf16") if wanted == "auto" else (wanted,):
        lacking = why_unsupported(decoder, precision)
        if lacking is None:
            return precision
    LOG.warning("the voice is spoken in fp32, not in %s: %s", wanted, lacking)
    return "fp32"


def _check_threshold(gate_threshold: float | None) -> None:
    if gate_threshold is not None and not 0 <= gate_threshold <= 1:  # NaN compares false as well
        raise UserError(f"--gate-threshold {gate_threshold:g}: must be from 0 to 1, a probability")


def places_of(parts: Sequence[Part]) -> list[str] | None:
    """`line 3: ` for each part; None where all of the text is one line."""
    return None if all(part.line == 1 for part in parts) else [f"line {part.line}: " for part in parts]


def read_texts(
    texts: Sequence[str], front_end: FrontEnd, *, places: Sequence[str] | None = None
) -> list[Sequence[int]]:
    """Symbol ids [T_text] of each text; one DataError for all that can't be read."""
    readings = front_end.read(texts)
    where = places or [""] * len(texts)
    problems = [
        f"{place}{excerpt(reading.text)!r}: {found.detail}"
        for place, reading in zip(where, readings, strict=True)
        for found in reading.problems
    ]
    n_bad = sum(bool(reading.problems) for reading in readings)
    if problems:
        what = f"{n_bad} of {len(texts)} texts" if len(texts) > 1 else "the text"
        raise DataError(format_problems(problems, headline=f"{what} can't be spoken:"))
    return [reading.ids for reading in readings]


Speaker = Voice  # its name in version 0.1.0
