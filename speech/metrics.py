"""How well the model speaks on its own: attention, stop, duration and mel distance of free-running decoding.

Teacher-forced loss hides failed attention, and a clean diagonal is drawn long before the speech is intelligible.
So the score that ranks runs (`composite_score`) looks at what was decoded without the recording's help, and looks
at the attention *and* at the mel. Everything here is a function of arrays; nothing touches a model or a disk.

An alignment A is [T_dec, T_text]: the valid part for one utterance, rows sum to 1. Mels are [n_mels, T_mel].
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

END_SYMBOLS = 3  # reaching one of the last three is the end: the full stop itself often gets no attention
LEAP_SYMBOLS = 4  # a larger argmax move skips something, at up to one symbol per decoder step
RECENT_SYMBOLS = 3  # a retreat is measured against the time that about three symbols take
# Faster than this no speech is (r = 6 at 11.6 ms hops: 43 symbols/s); decoding that stopped early seems to be.
FASTEST_SYMBOLS_PER_STEP = 3.0
FULL_SHARPNESS = 0.6  # a chosen bar: attention that worked measured 0.8, attention that never formed 0.2

WORST_DURATION_ERROR = 2.0  # |ln ratio|: seven times too long, or too short
WORST_MEL_DISTANCE = 2.0  # deviations; babble measured 0.5 to 0.8, unrelated noise is sqrt(2) unwarped
ALIGNMENT_WEIGHT = 0.5  # as much as lies between good speech (0.15 to 0.2) and babble (0.65)
STOP_WEIGHT = 0.25
DURATION_WEIGHT = 0.25
WORST_COMPOSITE = WORST_MEL_DISTANCE + ALIGNMENT_WEIGHT + STOP_WEIGHT + DURATION_WEIGHT


# Attention


def sharpness(alignment: np.ndarray) -> float:
    """alignment [T_dec, T_text] -> mean over decoder steps of the largest weight, 1/T_text (uniform) to 1; sharp does
    not mean right.
    """
    return float(alignment.max(axis=1).mean())


def diagonality(alignment: np.ndarray) -> float:
    """1 on the diagonal, 0 for a uniform alignment or anything worse, whatever T_dec / T_text is.

    1 - c(A) / c(uniform), c(A) = mean_t sum_n A[t,n] d[t,n], where d is how far the centres (n+1/2)/T_text and
    (t+1/2)/T_dec lie apart beyond half a cell of the coarser axis (a staircase is as diagonal as can be).
    With one step or one symbol there is nothing to be off: 1.
    """
    n_steps, n_symbols = alignment.shape
    time = (np.arange(n_steps) + 0.5) / n_steps
    place = (np.arange(n_symbols) + 0.5) / n_symbols
    half_cell = 0.5 * max(1 / n_steps, 1 / n_symbols)
    distance = np.maximum(np.abs(time[:, None] - place) - half_cell, 0.0)  # [T_dec, T_text]
    uniform = float(distance.mean())
    if uniform <= 1e-9:  # rounding of the half cell
        return 1.0
    cost = float((alignment * distance).sum(axis=1).mean())
    return min(1.0, max(0.0, 1.0 - cost / uniform))


def monotonicity(alignment: np.ndarray) -> float:
    """Share of argmax moves of alignment [T_dec, T_text] that read on: no retreat and no leap. 0 for a single step.

    Retreat: more than one symbol behind the furthest of the recent steps (the time of about three symbols). Against the
    previous step alone, text read backwards slowly would pass; against all steps, one stray early step would fail the
    rest. Leap: more than 4 symbols ahead of the previous step, scaled by symbols per step between 1 and 3, since with
    reduction factor r each step does r frames' work.
    """
    path = alignment.argmax(axis=1)
    if len(path) < 2:
        return 0.0
    leap = LEAP_SYMBOLS * _symbols_per_step(alignment)
    n_recent = max(3, math.ceil(RECENT_SYMBOLS * alignment.shape[0] / alignment.shape[1]))
    before = np.concatenate([np.full(n_recent - 1, path[0]), path[:-1]])
    furthest = np.lib.stride_tricks.sliding_window_view(before, n_recent).max(axis=1)  # [T_dec - 1]
    reads_on = (path[1:] >= furthest - 1) & (path[1:] - path[:-1] <= leap)
    return float(reads_on.mean())


def read_symbols(alignment: np.ndarray) -> np.ndarray:
    """True for each symbol that was read: at some step the argmax, or inside a hop of the normal stride. [T_text]

    The normal stride is ceil(symbols per step), at most 3: where a step must read more than one symbol the argmax can
    rest on one only.
    """
    path = alignment.argmax(axis=1)
    stride = math.ceil(_symbols_per_step(alignment))
    is_read = np.zeros(alignment.shape[1], dtype=bool)
    is_read[path] = True
    stops = np.concatenate([[-1], path, [alignment.shape[1]]])  # the first and the last hop count too
    for here, there in zip(stops[:-1], stops[1:], strict=True):
        if there - here <= stride:
            is_read[here + 1 : there] = True  # nothing for a retreat
    return is_read


def argmax_coverage(alignment: np.ndarray, *, ignore: np.ndarray | None = None) -> float:
    """Share of the symbols that were read, see `read_symbols`; 1 if all symbols are ignored.

    ignore: bool [T_text], True where no attention is needed (spaces, punctuation). Coverage by total weight is no use
    here: blurred attention covers everything.
    """
    is_read = read_symbols(alignment)
    counted = is_read if ignore is None else is_read[~np.asarray(ignore, dtype=bool)]
    return float(counted.mean()) if len(counted) else 1.0


def end_reached(alignment: np.ndarray) -> bool:
    """Whether the argmax of alignment [T_dec, T_text] was ever on one of the last three symbols."""
    return bool((alignment.argmax(axis=1) >= alignment.shape[1] - END_SYMBOLS).any())


def longest_dwell(alignment: np.ndarray) -> int:
    """Decoder steps of the longest stay of the argmax of alignment [T_dec, T_text] on one symbol."""
    changes = np.flatnonzero(np.diff(alignment.argmax(axis=1))) + 1
    edges = np.concatenate([[0], changes, [alignment.shape[0]]])
    return int(np.diff(edges).max())


def backward_jump(alignment: np.ndarray) -> int:
    """Symbols of the largest retreat behind the running maximum of the argmax of alignment [T_dec, T_text]: a repeated
    word shows here.
    """
    path = alignment.argmax(axis=1)
    return int((np.maximum.accumulate(path) - path).max())


def alignment_score(*, coverage: float, monotonicity: float, sharpness: float, end_reached: float) -> float:
    """One number in [0, 1] for the attention: coverage * monotonicity * min(1, sharpness / 0.6) * end_reached.

    A product, so that one failing part is enough: a blurred diagonal (sharpness 0.2, all else perfect) scores 0.33,
    where a geometric mean would still give it 0.67. Diagonality is left out: a long pause is no fault. NaN counts as 0.
    """
    parts = (coverage, monotonicity, sharpness / FULL_SHARPNESS, end_reached)
    return math.prod(min(1.0, max(0.0, part)) if math.isfinite(part) else 0.0 for part in parts)


def attention_score(alignment: np.ndarray, *, ignore: np.ndarray | None = None) -> float:
    """`alignment_score` of one alignment [T_dec, T_text]; `ignore` as in `argmax_coverage`."""
    return alignment_score(
        coverage=argmax_coverage(alignment, ignore=ignore),
        monotonicity=monotonicity(alignment),
        sharpness=sharpness(alignment),
        end_reached=float(end_reached(alignment)),
    )


def edit_distance(one: Sequence[int], other: Sequence[int]) -> int:
    """Least number of insertions, deletions and substitutions that turn one sequence into the other."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        above, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            above, row[j] = row[j], min(above + (a != b), row[j] + 1, row[j - 1] + 1)
    return row[-1]


def _symbols_per_step(alignment: np.ndarray) -> float:
    n_steps, n_symbols = alignment.shape
    return min(FASTEST_SYMBOLS_PER_STEP, max(1.0, n_symbols / n_steps))


# Duration and mel


def duration_ratio(n_frames: int, reference_frames: int) -> float:
    """Decoded frames over the recording's: 1 is right, 2 twice too long."""
    assert reference_frames > 0, "the recording has no frames"
    return n_frames / reference_frames


def duration_error(ratio: float) -> float:
    """|ln ratio|, so that half and double weigh the same; 0.05 is about 5 %. At most WORST_DURATION_ERROR."""
    if not (math.isfinite(ratio) and ratio > 0):
        return WORST_DURATION_ERROR
    return min(WORST_DURATION_ERROR, abs(math.log(ratio)))


def dtw_mel_distance(predicted: np.ndarray, reference: np.ndarray, *, std: float) -> float:
    """Mean over the cheapest time-warping path of the RMS difference over mel channels, in corpus deviations.

    predicted [n_mels, T1], reference [n_mels, T2], std: deviation of the training corpus in the mels' unit (1 for
    standardised mels). 0 for equal mels, and for one that only lingers on frames. Below 0.2 synthetic speech was
    near its intelligibility ceiling, above 0.3 unintelligible. inf if predicted is empty or not finite.
    """
    assert std > 0 and predicted.shape[0] == reference.shape[0], (std, predicted.shape, reference.shape)
    if predicted.shape[1] == 0 or not np.isfinite(predicted).all():
        return math.inf
    from scipy.spatial.distance import cdist  # takes 0.2 s to import, and only validation needs it

    cost = cdist(predicted.T.astype(np.float64), reference.T.astype(np.float64))  # [T1, T2]
    total, length = _cheapest_path(cost)
    return total / length / (math.sqrt(predicted.shape[0]) * std)


def _cheapest_path(cost: np.ndarray) -> tuple[float, int]:
    """Total cost and number of cells of the cheapest path from corner to corner by steps (1,1), (0,1), (1,0).

    One antidiagonal at a time: its cells depend only on the two before. librosa's compiled version is faster (12 ms
    against 40 ms for 400 x 450 frames), but takes 15 s for its first call where numba's cache is empty. Ties go to
    the earlier step in that list.
    """
    n_rows, n_columns = cost.shape
    flat = np.ascontiguousarray(cost).ravel()
    # Entry i + 1 belongs to row i; entry 0 stands for what lies outside.
    previous, before = np.full(n_rows + 1, np.inf), np.full(n_rows + 1, np.inf)
    previous_length, before_length = np.zeros(n_rows + 1, np.int64), np.zeros(n_rows + 1, np.int64)
    before[0] = 0.0  # the way into the first cell
    for k in range(n_rows + n_columns - 1):
        low, high = max(0, k - n_columns + 1), min(k, n_rows - 1)
        rows = np.arange(low, high + 1)
        ways = np.stack([before[low : high + 1], previous[low + 1 : high + 2], previous[low : high + 1]])
        lengths = np.stack(
            [before_length[low : high + 1], previous_length[low + 1 : high + 2], previous_length[low : high + 1]]
        )
        best = ways.argmin(axis=0)
        columns = np.arange(len(rows))
        current, current_length = np.full(n_rows + 1, np.inf), np.zeros(n_rows + 1, np.int64)
        current[low + 1 : high + 2] = ways[best, columns] + flat[k + rows * (n_columns - 1)]
        current_length[low + 1 : high + 2] = lengths[best, columns] + 1
        before, before_length, previous, previous_length = previous, previous_length, current, current_length
    return float(previous[n_rows]), int(previous_length[n_rows])


# One utterance, and all of them


@dataclass(frozen=True)
class FreeRunning:
    """What free-running decoding of one utterance was like; mel_distance may be inf, all else is finite."""

    coverage: float
    monotonicity: float
    sharpness: float
    diagonality: float
    end_reached: bool
    longest_dwell: int  # decoder steps
    backward_jump: int  # symbols
    stop_reason: str  # `modules.stopping.StopReason`; here without torch
    duration_ratio: float
    mel_distance: float  # deviations of the corpus

    @property
    def stopped(self) -> bool:
        """Whether the gate ended it; ending on dwell is the decoder's rescue, and must not hide a gate that is deaf."""
        return self.stop_reason == "gate"

    @property
    def alignment(self) -> float:
        return alignment_score(
            coverage=self.coverage,
            monotonicity=self.monotonicity,
            sharpness=self.sharpness,
            end_reached=float(self.end_reached),
        )


def assess(
    alignment: np.ndarray,
    *,
    predicted_mel: np.ndarray,
    reference_mel: np.ndarray,
    std: float,
    stop_reason: str,
    ignore: np.ndarray | None = None,
) -> FreeRunning:
    """Measure one decoded utterance against its recording.

    alignment [T_dec, T_text], predicted_mel [n_mels, T1], reference_mel [n_mels, T2], all without padding;
    std as in `dtw_mel_distance`, ignore as in `argmax_coverage`. An empty or non-finite alignment scores 0.
    """
    is_usable = alignment.size > 0 and bool(np.isfinite(alignment).all())
    return FreeRunning(
        coverage=argmax_coverage(alignment, ignore=ignore) if is_usable else 0.0,
        monotonicity=monotonicity(alignment) if is_usable else 0.0,
        sharpness=sharpness(alignment) if is_usable else 0.0,
        diagonality=diagonality(alignment) if is_usable else 0.0,
        end_reached=is_usable and end_reached(alignment),
        longest_dwell=longest_dwell(alignment) if is_usable else 0,
        backward_jump=backward_jump(alignment) if is_usable else 0,
        stop_reason=stop_reason,
        duration_ratio=duration_ratio(predicted_mel.shape[1], reference_mel.shape[1]),
        mel_distance=dtw_mel_distance(predicted_mel, reference_mel, std=std),
    )


def summarise(utterances: Sequence[FreeRunning]) -> dict[str, float]:
    """Means over utterances by name, all finite: a mel distance over WORST_MEL_DISTANCE counts as that."""
    assert utterances, "no utterance was decoded"

    def mean(values: Sequence[float]) -> float:
        return float(np.mean(values))

    return {
        "alignment": mean([u.alignment for u in utterances]),
        "coverage": mean([u.coverage for u in utterances]),
        "monotonicity": mean([u.monotonicity for u in utterances]),
        "sharpness": mean([u.sharpness for u in utterances]),
        "diagonality": mean([u.diagonality for u in utterances]),
        "end_reached": mean([u.end_reached for u in utterances]),
        "stop_rate": mean([u.stopped for u in utterances]),
        "duration_error": mean([duration_error(u.duration_ratio) for u in utterances]),
        "mel_distance": mean([bounded_distance(u.mel_distance) for u in utterances]),
    }


def composite_score(summary: Mapping[str, float]) -> float:
    """The number that ranks runs: LOWER is better, 0 to WORST_COMPOSITE, finite for every input.

    mel_distance + 0.5 (1 - alignment) + 0.25 (1 - stop_rate) + 0.25 min(1, duration_error)

    Alignment alone misleads: guided attention draws a diagonal over babble. Loss alone misleads: teacher forcing
    leaks the answer, and it falls without any attention. The mel distance is in corpus deviations and the rest are
    shares, so runs compare whatever their losses, batch sizes or reduction factors. Anything not finite: the worst.
    """
    distance, alignment = summary["mel_distance"], summary["alignment"]
    stop_rate, error = summary["stop_rate"], summary["duration_error"]
    if not all(math.isfinite(value) for value in (distance, alignment, stop_rate, error)):
        return WORST_COMPOSITE
    return (
        bounded_distance(distance)
        + ALIGNMENT_WEIGHT * (1 - alignment)
        + STOP_WEIGHT * (1 - stop_rate)
        + DURATION_WEIGHT * min(1.0, error)
    )


def bounded_distance(distance: float) -> float:
    return min(WORST_MEL_DISTANCE, distance) if math.isfinite(distance) else WORST_MEL_DISTANCE
