"""Parts said one after another: which attempt is kept, how loud they are, and that nothing waits for the end."""

from collections.abc import Sequence

import numpy as np
import pytest

from run_directory.records import Sample
from speech.decoding import Reference
from speech.long_text import Part
from speech.narration import narrate
from speech.self_check import Examination
from speech.utterance import SynthesizedUtterance

RATE = 1000


def said(text: str, seed: int, *, gain: float = 1.0, level: float = 0.1) -> SynthesizedUtterance:
    wav = np.full(100, level, np.float32)
    ones = np.ones((1, 1), np.float32)
    return SynthesizedUtterance(
        wav, Sample(text, list(text), ones, ones[0], ones, None, "gate", wav, RATE, 0.1), 0.1, 0.0, gain, seed
    )


def references(*texts: str) -> list[Reference]:
    return [Reference(text, [1], list(text), None) for text in texts]


def by_seed(batch: Sequence[Reference], seed: int) -> list[SynthesizedUtterance]:
    return [said(reference.text, seed) for reference in batch]


def test_a_doubtful_part_is_said_again_and_the_best_attempt_is_kept() -> None:
    badness = {7: 3.0, 8: 1.0, 9: 2.0, 10: 0.5}

    def doubt(utterance: SynthesizedUtterance) -> Examination:
        return Examination(("bad",), badness[utterance.seed])

    for attempts, seed in ((1, 7), (2, 8), (3, 8), (4, 10)):
        (part,) = narrate(
            [Part("a", 0.0)], references("a"), by_seed, sampling_rate=RATE, seed=7, examine=doubt, attempts=attempts
        )
        assert part.utterance is not None
        assert (part.utterance.seed, part.n_attempts) == (seed, attempts)


def test_nothing_is_said_again_once_a_part_is_good() -> None:
    def fine_at_eight(utterance: SynthesizedUtterance) -> Examination:
        return Examination(() if utterance.seed == 8 else ("bad",), 8.0 - utterance.seed)

    (part,) = narrate(
        [Part("a", 0.0)], references("a"), by_seed, sampling_rate=RATE, seed=7, examine=fine_at_eight, attempts=9
    )
    assert part.n_attempts == 2 and part.examination.doubts == ()


def test_each_part_comes_before_the_next_is_said() -> None:
    asked: list[str] = []

    def say(batch: Sequence[Reference], seed: int) -> list[SynthesizedUtterance]:
        asked.extend(reference.text for reference in batch)
        return by_seed(batch, seed)

    parts = narrate([Part(t, 0.0) for t in "abc"], references(*"abc"), say, sampling_rate=RATE, seed=0)
    next(parts)
    assert asked == ["a"]


def test_times_run_on_over_sounds_and_silences() -> None:
    parts = [Part("a", 0.25), Part("", 0.5), Part("b", 0.0)]
    narrated = list(narrate(parts, references("a", "b"), by_seed, sampling_rate=RATE, seed=0, batch_size=2))
    assert [part.start_s for part in narrated] == pytest.approx([0.0, 0.35, 0.85])
    assert [len(part.wav) for part in narrated] == [350, 500, 100]
    assert [part.end_s for part in narrated] == pytest.approx([0.1, 0.35, 0.95])


def test_a_part_that_the_network_said_softly_stays_softer() -> None:
    gains = {"loud": 1.0001, "soft": 4.0}  # what enhancement multiplied them with, to one loudness

    def say(batch: Sequence[Reference], seed: int) -> list[SynthesizedUtterance]:
        return [said(each.text, seed, gain=gains[each.text]) for each in batch]

    parts = [Part("loud", 0.0), Part("soft", 0.0)]
    loud, soft = narrate(parts, references("loud", "soft"), say, sampling_rate=RATE, seed=0)
    assert loud.wav.max() == pytest.approx(0.1) and soft.wav.max() == pytest.approx(0.05), "half at most"
