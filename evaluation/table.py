"""An evaluation as text and as plain data: one column for each source, one row for each measure."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from common.translations import messages
from evaluation.intervals import RESAMPLES, Estimate
from evaluation.judge import Judgement

Better = Literal["more", "less", "as recorded"]


@dataclass(frozen=True)
class Measure:
    """How a mean is shown; its words are in messages.yaml. is_share: in percent."""

    name: str
    better: Better
    is_share: bool = False


MEASURES = (
    Measure("wer", "less", is_share=True),
    Measure("cer", "less", is_share=True),
    Measure("deleted_words", "less", is_share=True),
    Measure("repeated_words", "less", is_share=True),
    Measure("distillmos", "more"),
    Measure("dnsmos_p808", "more"),
    Measure("dnsmos_signal", "more"),
    Measure("dnsmos_overall", "more"),
    Measure("likeness", "more"),
    Measure("pitch_error_cents", "less"),
    Measure("voicing_error", "less", is_share=True),
    Measure("pitch_spread", "as recorded"),
    Measure("cepstral_distortion_db", "less"),
    Measure("symbols_per_s", "as recorded"),
    Measure("mel_distance", "less"),
    Measure("duration_error", "less"),
    Measure("stop_rate", "more", is_share=True),
    Measure("alignment", "more"),
    Measure("coverage", "more"),
    Measure("monotonicity", "more"),
    Measure("sharpness", "more"),
    Measure("diagonality", "more"),
    Measure("end_reached", "more", is_share=True),
    Measure("skipped_by_attention", "less", is_share=True),
    Measure("repeated_by_attention", "less", is_share=True),
)


def shown(estimate: Estimate, measure: Measure) -> str:
    """Such as `12.0 % (8.1 to 16.2)`."""
    scale, digits = (100, 1) if measure.is_share else (1, 3 if estimate.value < 10 else 1)
    value = f"{scale * estimate.value:.{digits}f}{' %' if measure.is_share else ''}"
    if estimate.low is None or estimate.high is None:
        return value
    return f"{value} ({scale * estimate.low:.{digits}f} to {scale * estimate.high:.{digits}f})"


def rows(judgement: Judgement) -> list[tuple[Measure, list[str]]]:
    """The measures that were taken, each with a cell for each source; empty where it has none."""
    columns = list(judgement.estimates.values())
    taken = [measure for measure in MEASURES if any(measure.name in column for column in columns)]
    return [(m, [shown(c[m.name], m) if m.name in c else "" for c in columns]) for m in taken]


def headline(judgement: Judgement) -> str:
    first = next(iter(judgement.marked.values()))
    n_texts = len({one.clip.line.name for one in first})
    step = "" if judgement.step is None else f", checkpoint of step {judgement.step}"
    return f"{len(first)} readings of {n_texts} texts{step}"


def as_text(judgement: Judgement) -> str:
    names = messages("measures", "en")
    head = ["", *judgement.estimates, ""]
    body = [[measure.name, *cells, names[measure.name]] for measure, cells in rows(judgement)]
    lines = [headline(judgement), *_aligned([head, *body])]
    if any(one.low is not None for column in judgement.estimates.values() for one in column.values()):
        lines.append(f"in brackets: 95 % interval, bootstrap over the texts ({RESAMPLES} resamples)")
    return "\n".join([*lines, *judgement.notes])


def _aligned(cells: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in cells]


def as_json(judgement: Judgement) -> dict[str, Any]:
    """`step`, the first source's means by name, and under `sources` every mean with its interval."""
    sources: Mapping[str, Any] = {
        source: {name: asdict(each) for name, each in estimates.items()}
        for source, estimates in judgement.estimates.items()
    }
    plain = {"step": judgement.step, **judgement.summary, "judges": list(judgement.notes)}
    return {**plain, "sources": sources, "texts": list(judgement.rows)}
