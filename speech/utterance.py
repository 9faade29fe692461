"""One text as a voice said it: its sound, what the network did, and when each word is said."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from run_directory.records import Sample
from speech.timing import TimedText, symbol_edges, timed_symbols, timed_words, within, written_words

STOP_MEANING = {
    "gate": "stopped by itself",
    "dwell": "the stop gate did not fire; ended because attention stayed on the last symbol",
    "budget": "did not stop: cut at the length allowed for its text",
    "limit": "did not stop: cut at max_decoder_steps",
}


@dataclass(frozen=True)
class SynthesizedUtterance:
    """wav float32 [L], and all there is to see of it.

    step_s: sound that a decoder step made. cut_before_s: quiet that enhancement took away in front. gain: what it
    multiplied the sound with. seed: of the prenet's dropout.
    """

    wav: np.ndarray
    sample: Sample
    step_s: float = 0.0
    cut_before_s: float = 0.0
    gain: float = 1.0
    seed: int = 0

    @property
    def verdict(self) -> str:
        return STOP_MEANING[self.sample.stop_reason]

    @property
    def sampling_rate(self) -> int:
        return self.sample.sampling_rate

    @property
    def duration_s(self) -> float:
        return len(self.wav) / self.sampling_rate

    @cached_property
    def _edges(self) -> np.ndarray:
        return symbol_edges(self.sample.alignment, step_s=self.step_s)

    @property
    def symbols(self) -> list[TimedText]:
        """When each symbol is said, from the beginning of the sound."""
        return self._placed(timed_symbols(self.sample.symbols, self._edges))

    @property
    def words(self) -> list[TimedText]:
        """When each word is said, from the beginning of the sound."""
        written = written_words(self.sample.text)
        return self._placed(timed_words(self.sample.symbols, self._edges, written=written))

    def _placed(self, timed: list[TimedText]) -> list[TimedText]:
        return within(timed, cut_before_s=self.cut_before_s, duration_s=self.duration_s)

    def louder(self, factor: float) -> "SynthesizedUtterance":
        """The same with its sound scaled."""
        return self if factor == 1.0 else replace(self, wav=self.wav * np.float32(factor), gain=self.gain * factor)
