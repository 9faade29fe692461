"""A corpus in numbers."""

from collections import Counter

import numpy as np

from corpus.doctor import Examination


def statistics(examination: Examination) -> dict[str, object]:
    """Hours, speakers and lengths of the usable lines, by name, in plain types."""
    usable = [(e.line, e.measures) for e in examination.usable if e.measures is not None]
    seconds = [measures.duration_s for _, measures in usable]
    by_speaker: Counter[str] = Counter()
    for line, measures in usable:
        by_speaker[line.speaker or "unnamed"] += measures.duration_s / 3600  # type: ignore[assignment]
    characters = sum(len(line.text) for line, _ in usable)
    return {
        "lines": len(usable),
        "hours": round(sum(seconds) / 3600, 3),
        "speakers": {name: round(hours, 3) for name, hours in by_speaker.most_common()},
        "seconds (least, quarter, half, three quarters, most)": _quartiles(seconds),
        "characters (least, quarter, half, three quarters, most)": _quartiles([len(line.text) for line, _ in usable]),
        "characters a second": round(characters / max(1e-9, sum(seconds)), 2),
        "speech over noise, dB (median)": _median([measures.dynamics_db for _, measures in usable]),
        "loudness, dB (median)": _median([measures.loud_db for _, measures in usable]),
        "rates, Hz": dict(Counter(measures.sampling_rate for _, measures in usable)),
        "different words": len({word for line, _ in usable for word in line.text.casefold().split()}),
    }


def _quartiles(values: list[float] | list[int]) -> list[float]:
    return [round(float(q), 2) for q in np.percentile(values, (0, 25, 50, 75, 100))] if values else []


def _median(values: list[float]) -> float | None:
    return round(float(np.median(values)), 1) if values else None
