"""Recordings whose header states another rate than they were made at: too fast and too high, or too slow and too low.

Neither tells by itself: people read fast, and voices differ. What is off by one and the same factor in both is a label.
In two real corpora the pitch of no clip (130 of them) was off its median by more than a factor of 1.3.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from corpus.findings import Finding, warning

ODD_FACTOR = 1.5  # in speed and in pitch,
AGREEING = 1.4  # which are no further apart than that
LEAST_LINES = 3  # of a speaker at one rate, to compare rates
LEAST_JUDGED = 8  # to judge a whole corpus
USUAL_LETTERS_PER_S = 13.0  # of sound, without pauses; two real corpora: 11 and 15
TOO_FAST, TOO_HIGH = 20.0, 200.0  # letters a second and Hz, as medians of a corpus
TOO_SLOW, TOO_LOW = 8.0, 125.0
COMMON_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 96000)
ADVICE = "listen; if so, write the true rate into the header, or export it again"
ALPHABET_END = "\u0530"  # Latin, Greek and Cyrillic letters lie before; a sign of other scripts may be a syllable


@dataclass(frozen=True)
class Pitched:
    """What the label is judged by. time_ratio: seconds of sound over what the corpus takes for such a text; 0 where
    that or the pitch is not known."""

    text: str
    sound_s: float
    time_ratio: float
    pitch_hz: float
    sampling_rate: int
    speaker: str = ""

    @property
    def letters_per_s(self) -> float:
        return sum(char.isalnum() for char in self.text) / self.sound_s

    @property
    def is_usable(self) -> bool:
        letters = [char for char in self.text if char.isalpha()]
        is_alphabetic = 2 * sum(char < ALPHABET_END for char in letters) > len(letters)
        return min(self.sound_s, self.time_ratio, self.pitch_hz) > 0 and is_alphabetic


def check_rate_labels(lines: Sequence[Pitched]) -> list[Finding | None]:
    """A warning for each line that is odd among its speaker's, None for the others, in the order given."""
    found: list[Finding | None] = [None] * len(lines)
    by_speaker: defaultdict[str, list[int]] = defaultdict(list)
    for i, line in enumerate(lines):
        if line.is_usable:
            by_speaker[line.speaker].append(i)
    for group in by_speaker.values():
        for i, factor in _odd_rates(lines, group) or _odd_clips(lines, group):
            found[i] = _odd(lines[i], factor)
    return found


def check_whole(lines: Sequence[Pitched]) -> Finding | None:
    """A warning where nearly all of a corpus is too fast and too high for a person, or too slow and too low."""
    usable = [line for line in lines if line.is_usable]
    if len(usable) < LEAST_JUDGED:
        return None
    speed, pitch = _middle(usable)
    is_fast, is_slow = speed > TOO_FAST and pitch > TOO_HIGH, speed < TOO_SLOW and pitch < TOO_LOW
    if not is_fast and not is_slow:
        return None
    return warning(
        "sampling rate",
        f"{'fast and high' if is_fast else 'slow and low'} for a person: {speed:.0f} letters a second at {pitch:.0f} "
        f"Hz, as medians of {len(usable)} lines; headers may state {'twice' if is_fast else 'half'} the true rate",
        ADVICE,
        value=speed,
        limit=TOO_FAST if is_fast else TOO_SLOW,
    )


def _odd_clips(lines: Sequence[Pitched], group: Sequence[int]) -> list[tuple[int, float]]:
    """Lines with their factors, against the median of all."""
    pitch = float(np.median([lines[i].pitch_hz for i in group]))
    factors = [(i, _common_factor(1 / lines[i].time_ratio, lines[i].pitch_hz / pitch)) for i in group]
    return [(i, factor) for i, factor in factors if factor]


def _odd_rates(lines: Sequence[Pitched], group: Sequence[int]) -> list[tuple[int, float]]:
    """One rate's lines against another's: where half of a corpus has a wrong label, no line is odd by itself."""
    by_rate: defaultdict[int, list[int]] = defaultdict(list)
    for i in group:
        by_rate[lines[i].sampling_rate].append(i)
    middles = {r: _middle([lines[i] for i in own]) for r, own in by_rate.items() if len(own) >= LEAST_LINES}
    for (rate, (speed, pitch)), (_, (other_speed, other_pitch)) in permutations(middles.items(), 2):
        factor = _common_factor(speed / other_speed, pitch / other_pitch)
        if factor and _unusual(speed) > _unusual(other_speed):
            return [(i, factor) for i in by_rate[rate]]
    return []


def _middle(lines: Sequence[Pitched]) -> tuple[float, float]:
    """Medians: letters a second, and pitch in Hz."""
    letters = float(np.median([line.letters_per_s for line in lines]))
    return letters, float(np.median([line.pitch_hz for line in lines]))


def _unusual(letters_per_s: float) -> float:
    return abs(float(np.log(letters_per_s / USUAL_LETTERS_PER_S)))


def _common_factor(speed: float, pitch: float) -> float:
    """By how much a clip is too fast and too high (under 1: too slow and too low); 0 where these don't agree."""
    off = np.log([speed, pitch])
    agree = abs(off[0] - off[1]) < np.log(AGREEING) and off[0] * off[1] > 0
    return float(np.exp(off.mean())) if agree and np.abs(off).min() > np.log(ODD_FACTOR) else 0.0


def _odd(line: Pitched, factor: float) -> Finding:
    how, times = ("fast and high", factor) if factor > 1 else ("slow and low", 1 / factor)
    true = min(COMMON_RATES, key=lambda rate: abs(np.log(rate * factor / line.sampling_rate)))
    return warning(
        "sampling rate",
        f"{times:.1f} times as {how} as the rest: its header says {line.sampling_rate} Hz, and it may have been "
        f"recorded at {true} Hz",
        ADVICE,
        value=factor,
        limit=ODD_FACTOR if factor > 1 else 1 / ODD_FACTOR,
    )
