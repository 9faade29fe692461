"""The examination as one HTML file without scripts or outside parts: what is wrong, how the corpus is spread, and the
clips that are most worth a listen."""

import io
import os
import time
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from common.translations import Language, language_of, messages
from corpus.doctor import Examination, Examined
from corpus.findings import SEVERITIES, Finding
from corpus.listening import Heard
from corpus.recording_files import UnreadableRecording, read_recording

WORST = 50
SHOWN_FINDINGS = 1000
LONGEST_PLAYED_S = 20.0
PLAYED_RATE = 24000  # Hz; enough to judge by, at a third of the size
MP3_QUALITY = 0.6
BARS = 24
OUTER_PERCENT = 0.5  # of a distribution lies in the first and the last bar
WIDTH, HEIGHT, FOOT = 440.0, 150.0, 22.0  # units of the SVG


@dataclass(frozen=True)
class Kind:
    """Findings of one kind."""

    severity: str
    name: str
    n: int
    example: Finding


@dataclass(frozen=True)
class Bar:
    x: float
    y: float
    width: float
    height: float
    label: str


@dataclass(frozen=True)
class Histogram:
    """All an SVG needs of one distribution."""

    title: str
    hint: str
    bars: tuple[Bar, ...]
    low: str
    middle: str
    high: str


@dataclass(frozen=True)
class Clip:
    """One clip to hear; sound is a data URI, None where the file gives none."""

    where: str
    text: str
    heard: str
    facts: str
    findings: tuple[Finding, ...]
    sound: str | None


def page(
    examination: Examination,
    *,
    name: str,
    heard: Mapping[Path, Heard] | None = None,
    language: Language | None = None,
) -> str:
    """The HTML. heard: what listeners said of recordings. language: by default that of the locale."""
    heard = heard or {}
    language = language or language_of(os.environ)
    words = messages("examination", language)
    counts = examination.counts()
    return str(
        _template().render(
            words=words,
            language=language,
            kind_names=messages("finding_kinds", language),
            name=name,
            now=time.strftime("%Y-%m-%d %H:%M %Z"),
            facts=_facts(examination, words),
            totals={severity: sum(counts[severity].values()) for severity in SEVERITIES},
            kinds=_kinds(examination),
            histograms=_histograms(examination, heard, language),
            clips=[_clip(examined, heard, words) for examined in worst(examination, heard)],
            findings=examination.findings[:SHOWN_FINDINGS],
            n_more=max(0, len(examination.findings) - SHOWN_FINDINGS),
            width=WIDTH,
            height=HEIGHT,
        )
    )


@cache
def _template() -> Any:
    settings: dict[str, Any] = {"autoescape": True, "undefined": StrictUndefined, "trim_blocks": True}
    loader = FileSystemLoader(Path(__file__).parent)
    return Environment(loader=loader, lstrip_blocks=True, **settings).get_template("doctor_page.html")


def _facts(examination: Examination, words: Mapping[str, str]) -> list[tuple[str, str]]:
    seconds = [e.measures.duration_s for e in examination.usable if e.measures is not None]
    speakers = {e.line.speaker for e in examination.lines if e.line.speaker is not None}
    rates = {e.measures.sampling_rate for e in examination.lines if e.measures is not None}
    n_read = sum(len(checked.lines) for checked in examination.lists)
    found = [
        (words["usable"], words["of_read"].format(n=len(examination.usable), read=n_read)),
        (words["sound"], words["hours"].format(hours=sum(seconds) / 3600)),
        (words["speakers"], str(len(speakers) or 1)),
        (words["rates"], ", ".join(f"{rate} {words['hertz']}" for rate in sorted(rates)) or words["none"]),
    ]
    return found + [(words["list"], str(checked.path)) for checked in examination.lists]


def _kinds(examination: Examination) -> list[Kind]:
    counts = examination.counts()
    first: dict[tuple[str, str], Finding] = {}
    for finding in examination.findings:
        first.setdefault((finding.severity, finding.kind), finding)
    return [
        Kind(severity, kind, n, first[severity, kind])
        for severity in SEVERITIES
        for kind, n in counts[severity].most_common()
    ]


# ---- what to hear


def worst(examination: Examination, heard: Mapping[Path, Heard], *, n: int = WORST) -> list[Examined]:
    """The lines most worth a listen: with errors, with warnings, then those farthest from the usual."""
    ranked = sorted(examination.lines, key=lambda e: -_suspicion(e, heard.get(e.line.audio_path)))
    return [examined for examined in ranked[:n] if _suspicion(examined, heard.get(examined.line.audio_path)) > 1]


def _suspicion(examined: Examined, heard: Heard | None) -> float:
    """Over 100 with an error, over 10 with a warning; below, how odd the pair is."""
    weights = {"error": 100.0, "warning": 10.0, "note": 0.0}
    found = sum(weights[finding.severity] for finding in examined.findings)
    odd = min(9.0, examined.rate.deviations) if examined.rate is not None else 0.0
    return found + odd + (5 * min(1.0, heard.errors) if heard is not None and heard.errors is not None else 0.0)


def _clip(examined: Examined, heard: Mapping[Path, Heard], words: Mapping[str, str]) -> Clip:
    h = heard.get(examined.line.audio_path)
    m, rate = examined.measures, examined.rate
    facts = [
        words["seconds"].format(seconds=m.duration_s) if m else "",
        words["usual_time"].format(ratio=rate.ratio) if rate else "",
    ]
    if h is not None:
        facts += [
            words["heard_otherwise"].format(percent=100 * h.errors) if h.errors is not None else "",
            words["likeness"].format(value=h.likeness) if h.likeness is not None else "",
            words["quality"].format(value=h.quality) if h.quality is not None else "",
        ]
    return Clip(
        where=f"{examined.source.name}:{examined.line.number} {examined.line.utterance_id}",
        text=examined.line.text,
        heard=(h.heard or "") if h is not None else "",
        facts=", ".join(filter(None, facts)),
        findings=examined.findings,
        sound=sound_uri(examined.line.audio_path),
    )


def sound_uri(path: Path) -> str | None:
    """The first seconds of a recording as a data URI, never louder than full scale; None if it gives no sound."""
    try:
        recording = read_recording(path, max_s=LONGEST_PLAYED_S)
    except (OSError, UnreadableRecording):
        return None
    wav = np.nan_to_num(recording.samples, posinf=0.0, neginf=0.0).mean(axis=0)
    peak = float(np.abs(wav).max(initial=0.0))
    wav = (wav / max(1.0, peak)).astype(np.float32)
    if recording.sampling_rate != PLAYED_RATE:
        wav = soxr.resample(wav, recording.sampling_rate, PLAYED_RATE)
    if not len(wav):
        return None
    encoded = io.BytesIO()
    soundfile.write(encoded, wav, PLAYED_RATE, format="MP3", bitrate_mode="VARIABLE", compression_level=MP3_QUALITY)
    return f"data:audio/mpeg;base64,{b64encode(encoded.getvalue()).decode('ascii')}"


# ---- distributions


def _histograms(examination: Examination, heard: Mapping[Path, Heard], language: Language) -> list[Histogram]:
    measures = [e.measures for e in examination.lines if e.measures is not None]
    heards = list(heard.values())
    values = {
        "length": [m.duration_s for m in measures],
        "rate": [e.rate.ratio for e in examination.lines if e.rate is not None],
        "loudness": [m.loud_db for m in measures],
        "dynamics": [m.dynamics_db for m in measures],
        "leading": [m.leading_s for m in measures],
        "trailing": [m.trailing_s for m in measures],
        "heard": [h.errors for h in heards if h.errors is not None],
        "likeness": [h.likeness for h in heards if h.likeness is not None],
        "quality": [h.quality for h in heards if h.quality is not None],
    }
    titles, hints = messages("spread_titles", language), messages("spread_hints", language)
    median = messages("examination", language)["median"]
    found = [histogram(titles[name], values[name], hints.get(name, ""), median=median) for name in titles]
    return [h for h in found if h is not None]


def histogram(title: str, values: Sequence[float], hint: str, *, median: str = "median {value}") -> Histogram | None:
    """Bars over the values; the few beyond either end are in the outer bars. None where all are the same, or none."""
    numbers = np.asarray(values, dtype=float)
    if len(numbers) < 2 or numbers.min() == numbers.max():
        return None
    low, high = np.percentile(numbers, (OUTER_PERCENT, 100 - OUTER_PERCENT))
    if low == high:
        low, high = numbers.min(), numbers.max()
    counts, edges = np.histogram(np.clip(numbers, low, high), bins=BARS, range=(low, high))
    width = WIDTH / BARS
    tallest = HEIGHT - FOOT - 4
    bars = tuple(
        Bar(
            round(i * width, 1), round(HEIGHT - FOOT - h, 1), round(width - 1.5, 1), round(h, 1), f"{edges[i]:.3g}: {n}"
        )
        for i, n in enumerate(counts.tolist())
        if (h := tallest * n / counts.max()) > 0
    )
    middle = median.format(value=f"{float(np.median(numbers)):.3g}")
    return Histogram(title, hint, bars, f"{low:.3g}", middle, f"{high:.3g}")
