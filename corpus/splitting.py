"""Which lines train and which validate: by seed, every speaker and every length in both, no text on both sides."""

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from corpus.list_checks import text_key

DEFAULT_SHARE = 0.05
MOST_VALIDATED = 100  # lines; more only makes validation slow
LEAST_LINES = 10  # of a speaker; with fewer all train


@dataclass(frozen=True)
class Listed:
    """What a split looks at; speaker "" where none is named."""

    text: str
    speaker: str = ""


def validation_lines(
    lines: Sequence[Listed], *, seed: int, share: float = DEFAULT_SHARE, most: int = MOST_VALIDATED
) -> list[int]:
    """Indices of the lines that validate, ascending. The same lines and seed give the same answer.

    share: of the lines of each speaker, at least one where there are LEAST_LINES. Lines with the same text stay
    together.
    """
    rng = random.Random(seed)
    share = min(share, most / max(1, len(lines)))
    groups: defaultdict[str, list[int]] = defaultdict(list)
    for i, line in enumerate(lines):
        groups[text_key(line.text)].append(i)
    n_of = Counter(line.speaker for line in lines)
    lacking = {speaker: max(1, round(share * n)) for speaker, n in n_of.items() if n >= LEAST_LINES}
    if not lacking and len(lines) > 1:  # a corpus too small to spare more than one line
        lacking = {n_of.most_common(1)[0][0]: 1}
    chosen: set[str] = set()
    for speaker in sorted(lacking):
        own = [key for key, members in groups.items() if any(lines[i].speaker == speaker for i in members)]
        for stratum in _strata(own, lacking[speaker]):
            key = _best(stratum, groups, lines, lacking, chosen, rng)
            if key is not None:
                chosen.add(key)
                for i in groups[key]:
                    lacking[lines[i].speaker] = lacking.get(lines[i].speaker, 0) - 1
    return sorted(i for key in chosen for i in groups[key])


def _strata(keys: Sequence[str], n: int) -> list[list[str]]:
    """Texts in order of length, in n parts of about the same size."""
    ordered = sorted(keys, key=lambda key: (len(key), key))
    return [ordered[k * len(ordered) // n : (k + 1) * len(ordered) // n] for k in range(max(0, n))]


def _best(
    keys: Sequence[str],
    groups: dict[str, list[int]],
    lines: Sequence[Listed],
    lacking: dict[str, int],
    chosen: set[str],
    rng: random.Random,
) -> str | None:
    """A text of this length that takes the fewest lines from speakers who have given enough; by chance among equals."""
    free = [key for key in keys if key not in chosen]
    if not free:
        return None

    def too_many(key: str) -> int:
        wanted = Counter(lines[i].speaker for i in groups[key])
        return sum(max(0, n - max(0, lacking.get(speaker, 0))) for speaker, n in wanted.items())

    least = min(map(too_many, free))
    return rng.choice([key for key in free if too_many(key) == least])
