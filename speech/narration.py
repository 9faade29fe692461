"""A long text said part by part: sound and pauses in order, while memory holds one part."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from audio.enhancement import PEAK_CEILING
from speech.decoding import Reference
from speech.long_text import Part
from speech.self_check import Examination
from speech.timing import TimedText
from speech.utterance import SynthesizedUtterance

Say = Callable[[Sequence[Reference], int], list[SynthesizedUtterance]]  # texts, seed -> as they were said
Examine = Callable[[SynthesizedUtterance], Examination]
# A part is brought to the level of those before it by at most so much: a shout stays louder than a whisper.
LEAST_FACTOR, LARGEST_FACTOR = 0.5, 2.0


@dataclass(frozen=True)
class NarratedPart:
    """One part as it was said; utterance is None where only silence was wanted. start_s: within the whole."""

    part: Part
    start_s: float
    sampling_rate: int
    utterance: SynthesizedUtterance | None = None
    examination: Examination = field(default_factory=Examination)
    n_attempts: int = 1

    @property
    def wav(self) -> np.ndarray:
        """float32 [L] with the silence that follows."""
        silence = np.zeros(round(self.part.pause_s * self.sampling_rate), np.float32)
        return silence if self.utterance is None else np.concatenate([self.utterance.wav, silence])

    @property
    def end_s(self) -> float:
        """When the last sound ends, its silence left out."""
        return self.start_s + (0.0 if self.utterance is None else self.utterance.duration_s)

    @property
    def sentence(self) -> TimedText:
        return TimedText(self.part.text, self.start_s, self.end_s)

    @property
    def words(self) -> list[TimedText]:
        return [] if self.utterance is None else [word.shifted(self.start_s) for word in self.utterance.words]

    @property
    def symbols(self) -> list[TimedText]:
        return [] if self.utterance is None else [symbol.shifted(self.start_s) for symbol in self.utterance.symbols]


def narrate(
    parts: Sequence[Part],
    references: Sequence[Reference],
    say: Say,
    *,
    sampling_rate: int,
    seed: int,
    batch_size: int = 1,
    examine: Examine | None = None,
    attempts: int = 1,
) -> Iterator[NarratedPart]:
    """Each part as soon as it is said. references: those of the parts that have words, in order.

    With `examine`, a doubtful part is said again with the next seed, `attempts` times at most, and the best is kept.
    """
    spoken = _all_said(references, say, seed=seed, batch_size=batch_size)
    levels, n_samples = _RunningLevel(), 0
    for part in parts:
        start_s = n_samples / sampling_rate
        if part.text:
            first = next(spoken)
            best, examination, n = _best_of(first, say, examine, attempts=attempts, seed=seed)
            narrated = NarratedPart(part, start_s, sampling_rate, levels.levelled(best), examination, n)
        else:
            narrated = NarratedPart(part, start_s, sampling_rate)
        n_samples += len(narrated.wav)
        yield narrated


@dataclass(frozen=True)
class _Said:
    reference: Reference
    utterance: SynthesizedUtterance


def _all_said(references: Iterable[Reference], say: Say, *, seed: int, batch_size: int) -> Iterator[_Said]:
    waiting = iter(references)
    while batch := list(islice(waiting, batch_size)):
        yield from (_Said(*pair) for pair in zip(batch, say(batch, seed), strict=True))


def _best_of(
    said: _Said, say: Say, examine: Examine | None, *, attempts: int, seed: int
) -> tuple[SynthesizedUtterance, Examination, int]:
    """The best attempt, what is still doubtful of it, and how many it took."""
    if examine is None:
        return said.utterance, Examination(), 1
    best, found, n = said.utterance, examine(said.utterance), 1
    while found.doubts and n < attempts:
        (again,) = say([said.reference], seed + n)
        n += 1
        if (other := examine(again)).badness < found.badness:
            best, found = again, other
    return best, found, n


@dataclass
class _RunningLevel:
    """Enhancement gives every part the same loudness; here they get back some of how they differed.

    All parts share the gain that suits their mean power so far, so the first part, and a text of one part, keep theirs.
    """

    seconds: float = 0.0
    power: float = 0.0  # of what the network made, over all parts so far

    def levelled(self, utterance: SynthesizedUtterance) -> SynthesizedUtterance:
        if utterance.gain == 1.0 or not len(utterance.wav):
            return utterance
        own = utterance.gain**-2
        self.power += own * utterance.duration_s
        self.seconds += utterance.duration_s
        factor = float(np.sqrt(own / (self.power / self.seconds)))
        factor = min(max(factor, LEAST_FACTOR), LARGEST_FACTOR, PEAK_CEILING / float(np.abs(utterance.wav).max()))
        return utterance.louder(factor if abs(factor - 1.0) > 1e-9 else 1.0)
