"""Recordings that are much louder or quieter than the rest of their speaker's: half-whispered lessons for the model."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from corpus.findings import Finding, warning

LEAST_LINES = 8  # of a speaker
ODD_DB = 12.0  # two real corpora: no clip of 380 is off by more than 6.1
ODD_DEVIATIONS = 5.0
UNEVEN_DB = 20.0  # from the quietest to the loudest, without a twentieth at each end; real: 1 and 6
ADVICE = "bring all to one level, as prepare_data.py check does with --fix"


def check_levels(loud_db: Sequence[float | None], speakers: Sequence[str]) -> list[Finding | None]:
    """A warning for each line that is odd among its speaker's, None for the others, in the order given.

    loud_db: of loud parts, in dB of full scale; None where nothing was measured.
    """
    found: list[Finding | None] = [None] * len(loud_db)
    for group in _by_speaker(loud_db, speakers).values():
        levels = np.array([level for _, level in group])
        usual = float(np.median(levels))
        spread = 1.4826 * float(np.median(np.abs(levels - usual)))
        for i, level in group:
            if abs(level - usual) > max(ODD_DB, ODD_DEVIATIONS * spread):
                off = f"{abs(level - usual):.0f} dB {'louder' if level > usual else 'quieter'} than the rest"
                detail = f"{off}: loud parts reach {level:.0f} dB of full scale, theirs {usual:.0f} dB"
                found[i] = warning("level", detail, ADVICE, value=level - usual, limit=ODD_DB)
    return found


def check_evenness(loud_db: Sequence[float | None], speakers: Sequence[str]) -> Finding | None:
    """One warning where a speaker's recordings have no common level, so that none of them is odd."""
    groups = _by_speaker(loud_db, speakers)
    ranges = {name: float(np.ptp(np.percentile([db for _, db in group], (5, 95)))) for name, group in groups.items()}
    name = max(ranges, key=lambda speaker: ranges[speaker], default="")
    if not ranges or ranges[name] <= UNEVEN_DB:
        return None
    whose = f"the {len(groups[name])} recordings{f' of {name}' if name else ''}"
    detail = f"{whose} differ in level by {ranges[name]:.0f} dB"
    return warning("level", detail, ADVICE, value=ranges[name], limit=UNEVEN_DB)


def _by_speaker(loud_db: Sequence[float | None], speakers: Sequence[str]) -> dict[str, list[tuple[int, float]]]:
    """Numbers and levels of lines; speakers with few are left out."""
    groups: defaultdict[str, list[tuple[int, float]]] = defaultdict(list)
    for i, (level, speaker) in enumerate(zip(loud_db, speakers, strict=True)):
        if level is not None:
            groups[speaker].append((i, level))
    return {speaker: group for speaker, group in groups.items() if len(group) >= LEAST_LINES}
