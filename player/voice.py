"""A voice of ONNX files that speaks: `OnnxVoice.load("anna.zip").synthesize("Hello there.")`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from audio.mel_sharpening import sharpened
from common.errors import DataError, UserError, format_problems
from common.log import LOG
from player.archive import VOCODER, Archive, Description, read_archive
from player.griffin_lim import griffin_lim
from speech.long_text import Part, sentences_by_library, sentences_by_punctuation, split_text
from text.front_end import FrontEnd, excerpt

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

LONGEST_PART, LEAST_PART = 200, 40  # characters said in one go, as `speech.voice` has it
INSTALL = "playing a voice needs onnxruntime: pip install -r requirements-player.txt"
STATE = ("frame", "attention_hidden", "attention_cell", "context", "weights", "decoder_hidden", "decoder_cell")


@dataclass(frozen=True)
class Said:
    """One part as the network made it, before the vocoder."""

    mel: np.ndarray  # [n_mels, T_mel] log-mel
    alignment: np.ndarray  # [T_dec, T_text]
    stop_reason: str  # as `modules.stopping.StopReason`


@dataclass(frozen=True)
class OnnxVoice:
    """sessions by the names of `archive.GRAPHS`."""

    description: Description
    sessions: dict[str, "InferenceSession"]
    mel_basis: np.ndarray
    front_end: FrontEnd

    @classmethod
    def load(cls, path: str | Path, *, n_threads: int = 0) -> "OnnxVoice":
        """n_threads: 0 leaves the choice to onnxruntime. UserError if it can't be."""
        archive = read_archive(Path(path))
        try:
            return cls.of(archive, n_threads=n_threads)
        except UserError:
            raise
        except Exception as error:  # noqa: BLE001 - onnxruntime's errors have no base but this
            raise UserError(f"{path}: a graph of it can't be run ({str(error)[:200]}); export it again") from None

    @classmethod
    def of(cls, archive: Archive, *, n_threads: int = 0) -> "OnnxVoice":
        try:
            import onnxruntime
        except ImportError:
            raise UserError(INSTALL) from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = n_threads, 3
        sessions = {
            name: onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
            for name, content in archive.graphs.items()
        }
        front_end = FrontEnd.from_dict(archive.description.front_end)
        return cls(archive.description, sessions, archive.mel_basis, front_end)

    @property
    def sampling_rate(self) -> int:
        return self.description.sampling_rate

    def synthesize(self, text: str, *, speaker: str | None = None, seed: int = 1234, n_iter: int = 60) -> np.ndarray:
        """A text of any length -> float32 [L]. n_iter: of Griffin-Lim. DataError for what can't be read."""
        return np.concatenate(list(self.stream(text, speaker=speaker, seed=seed, n_iter=n_iter)))

    def stream(
        self, text: str, *, speaker: str | None = None, seed: int = 1234, n_iter: int = 60
    ) -> Iterator[np.ndarray]:
        """The same in pieces [L], sentence by sentence with the silence that follows."""
        parts, row = self.parts_of(text), self.row_of(speaker)
        ids_of = iter(self.read([part.text for part in parts if part.text]))
        for part in parts:
            silence = np.zeros(round(part.pause_s * self.sampling_rate), np.float32)
            if part.text:
                said = self.say(next(ids_of), row=row, masks=self.masks(seed))
                if said.stop_reason in ("budget", "limit"):
                    LOG.warning("%r was cut before the voice stopped: words may be missing", excerpt(part.text))
                yield np.concatenate([self.sound_of(sharpened(said.mel), n_iter=n_iter, seed=seed), silence])
            else:
                yield silence

    def parts_of(self, text: str) -> list[Part]:
        """Sentences by sentencex where it is installed, else by punctuation."""
        longest = LONGEST_PART if self.description.longest_text is None else self.description.longest_text
        try:
            import sentencex  # noqa: F401 - whether it is there

            segmenter = sentences_by_library
        except ImportError:
            segmenter = sentences_by_punctuation
        language = self.front_end.language.code
        parts = split_text(text, language=language, longest=max(longest, LEAST_PART), segmenter=segmenter)
        return parts if any(part.text for part in parts) else [Part(text.strip() or " ", 0.0)]

    def read(self, texts: Sequence[str]) -> list[Sequence[int]]:
        """Ids of each text; one DataError for all that can't be read."""
        readings = self.front_end.read(texts)
        problems = [f"{each.text[:60]!r}: {found.detail}" for each in readings for found in each.problems]
        if problems:
            raise DataError(format_problems(problems, headline=f"{len(problems)} problems in the text:"))
        return [each.ids for each in readings]

    def row_of(self, speaker: str | None) -> int:
        """UserError where there is no such speaker, or several and none is named."""
        names = self.description.speakers
        if speaker is None and len(names) <= 1:
            return 0
        if speaker not in names:
            raise UserError(f"speaker {speaker}: the voice has {', '.join(names) or 'no names of speakers'}")
        return names.index(speaker)

    def masks(self, seed: int) -> Iterator[np.ndarray]:
        """The prenet's dropout of each step, which stays on: [2, 1, prenet_dim]."""
        d, draw = self.description, np.random.default_rng(seed)
        keep = 1.0 - d.prenet_dropout
        while True:
            yield ((draw.random((2, 1, d.prenet_dim)) < keep) / keep).astype(np.float32)

    def say(self, ids: Sequence[int], *, row: int, masks: Iterator[np.ndarray]) -> Said:
        """ids [T_text] -> what the network makes of them."""
        memory, keys = self._run("encoder", text=np.array([ids], np.int64), speaker=np.array([row], np.int64))
        state, steps, weights, stop = self._first_state(memory), [], [], _Stop(self.description, len(ids))
        while stop.reason is None:
            frames, gate, *changed = self._run(
                "decoder_step", memory=memory, keys=keys, masks=next(masks), **dict(zip(STATE, state, strict=True))
            )
            state = [frames[:, -self._n_mels :], *changed]
            steps.append(frames.reshape(-1, self._n_mels))
            weights.append(changed[3][0, 0])
            stop.note(float(gate[0]), int(weights[-1].argmax()))
        mel = np.concatenate(steps).T[None]  # [1, n_mels, T_mel]
        (refined,) = self._run("postnet", mel=np.ascontiguousarray(mel))
        log_mel = refined[0] * np.float32(self.description.mel_std) + np.float32(self.description.mel_mean)
        return Said(log_mel, np.stack(weights), stop.reason)

    def sound_of(self, log_mel: np.ndarray, *, n_iter: int, seed: int) -> np.ndarray:
        """[n_mels, T] -> float32 [(T - 1) * hop]. n_iter and seed: of Griffin-Lim."""
        d = self.description
        if d.vocoder is None:
            return griffin_lim(
                log_mel, self.mel_basis, n_fft=d.filter_length, hop=d.hop_length, win=d.win_length, n_iter=n_iter,
                seed=seed,
            )  # fmt: skip
        sound = self._run(VOCODER, mel=log_mel[None].astype(np.float32))[0].reshape(-1)
        first = d.vocoder["first_centre"]
        return sound[first : first + max(log_mel.shape[1] - 1, 1) * d.hop_length]

    @cached_property
    def _n_mels(self) -> int:
        return len(self.mel_basis)

    def _first_state(self, memory: np.ndarray) -> list[np.ndarray]:
        """In the order of STATE."""
        widths = self.description.widths
        weights = np.zeros((1, 2, memory.shape[1]), np.float32)
        weights[0, 0, 0] = float(self.description.starts_on_first_symbol)
        sizes = (self._n_mels, widths["attention_rnn"], widths["attention_rnn"], widths["encoder"])
        spoken = [np.zeros((1, widths["decoder_rnn"]), np.float32) for _ in range(2)]
        return [*(np.zeros((1, size), np.float32) for size in sizes), weights, *spoken]

    def _run(self, name: str, **inputs: Any) -> list[np.ndarray]:
        session = self.sessions[name]
        known = {each.name for each in session.get_inputs()}  # a graph of one speaker asks for none
        return session.run(None, {key: value for key, value in inputs.items() if key in known})


class _Stop:
    """When a text has ended, and why: `modules.stopping.StopWatch` for one text."""

    def __init__(self, description: Description, n_symbols: int) -> None:
        self.d, self.last, self.dwell, self.n_frames = description, n_symbols - 1, 0, 0
        budget = int(np.ceil(description.budget_offset + description.frames_per_symbol * n_symbols))
        self.budget, self.reason = min(budget, description.max_frames), None if n_symbols else "limit"

    def note(self, gate_logit: float, symbol: int) -> None:
        self.n_frames += self.d.frames_per_step
        self.dwell = self.dwell + self.d.frames_per_step if symbol == self.last else 0
        if 1.0 / (1.0 + np.exp(-gate_logit)) > self.d.gate_threshold:
            self.reason = "gate"
        elif self.dwell >= self.d.dwell_frames:
            self.reason = "dwell"
        elif self.n_frames >= self.budget:
            self.reason = "budget" if self.budget < self.d.max_frames else "limit"
