"""Synthetic alignments with a known fault, and time warping against a brute-force search."""

import math
from dataclasses import replace

import numpy as np
import pytest

from speech import metrics
from speech.metrics import (
    WORST_COMPOSITE,
    FreeRunning,
    alignment_score,
    argmax_coverage,
    assess,
    attention_score,
    backward_jump,
    composite_score,
    diagonality,
    dtw_mel_distance,
    duration_error,
    duration_ratio,
    edit_distance,
    end_reached,
    longest_dwell,
    monotonicity,
    sharpness,
    summarise,
)

RATIOS = [(40, 40), (240, 40), (61, 40), (40, 55), (30, 60), (400, 12)]  # (T_dec, T_text), r = 1 to 6


def one_hot(path: np.ndarray, n_symbols: int) -> np.ndarray:
    return np.eye(n_symbols)[path]


def diagonal(n_steps: int, n_symbols: int) -> np.ndarray:
    return one_hot(((np.arange(n_steps) + 0.5) / n_steps * n_symbols).astype(int), n_symbols)


def blurred(n_steps: int, n_symbols: int, width: float) -> np.ndarray:
    """A diagonal smeared over `width` symbols (Gaussian)."""
    centre = np.linspace(0, n_symbols - 1, n_steps)
    weights = np.exp(-0.5 * ((np.arange(n_symbols) - centre[:, None]) / width) ** 2)
    return weights / weights.sum(axis=1, keepdims=True)


def uniform(n_steps: int, n_symbols: int) -> np.ndarray:
    return np.full((n_steps, n_symbols), 1 / n_symbols)


@pytest.mark.parametrize(
    ("one", "other", "distance"),
    [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "", 3), ("ab", "ba", 2), ("a", "a", 0)],
)
def test_edit_distance_is_levenshteins(one: str, other: str, distance: int) -> None:
    assert edit_distance([*map(ord, one)], [*map(ord, other)]) == distance


STUCK = one_hot(np.zeros(120, int), 40)
SKIPPING = one_hot(np.concatenate([np.repeat(np.arange(15), 3), np.repeat(np.arange(25, 40), 3)]), 40)
REPEATING = one_hot(np.repeat(np.concatenate([np.arange(20), np.arange(12, 40)]), 3), 40)


@pytest.mark.parametrize("shape", RATIOS)
def test_a_perfect_diagonal_is_perfect_at_any_ratio(shape: tuple[int, int]) -> None:
    perfect = diagonal(*shape)
    assert diagonality(perfect) > 0.97
    assert monotonicity(perfect) == argmax_coverage(perfect) == sharpness(perfect) == attention_score(perfect) == 1.0
    assert end_reached(perfect)


@pytest.mark.parametrize("shape", RATIOS)
def test_a_uniform_alignment_is_not_diagonal_and_scores_nothing(shape: tuple[int, int]) -> None:
    assert diagonality(uniform(*shape)) == pytest.approx(0.0, abs=1e-9)
    assert attention_score(uniform(*shape)) < 0.05


@pytest.mark.parametrize("shape", RATIOS)
def test_reading_backwards_is_neither_diagonal_nor_monotone(shape: tuple[int, int]) -> None:
    backwards = diagonal(*shape)[::-1]
    assert diagonality(backwards) == 0.0
    # The first moves have nothing recent to be behind of.
    assert monotonicity(backwards) < 0.3
    assert attention_score(backwards) < 0.3


def test_attention_stuck_at_the_start_covers_one_symbol_and_never_ends() -> None:
    assert argmax_coverage(STUCK) == 1 / 40
    assert not end_reached(STUCK)
    assert longest_dwell(STUCK) == 120
    assert attention_score(STUCK) == 0.0


def test_skipping_a_word_costs_coverage_and_one_move() -> None:
    assert argmax_coverage(SKIPPING) == 30 / 40
    assert monotonicity(SKIPPING) == 1 - 1 / (len(SKIPPING) - 1)
    assert backward_jump(SKIPPING) == 0
    assert attention_score(SKIPPING) < 0.75


def test_repeating_a_word_costs_monotonicity_and_shows_as_a_backward_jump() -> None:
    assert argmax_coverage(REPEATING) == 1.0
    assert monotonicity(REPEATING) < 0.95
    assert backward_jump(REPEATING) == 19 - 12
    assert attention_score(REPEATING) < attention_score(diagonal(144, 40))


def test_one_stray_step_at_the_start_does_not_condemn_the_rest() -> None:
    path = diagonal(120, 40).argmax(axis=1)
    path[0] = 39
    assert monotonicity(one_hot(path, 40)) > 0.9


def test_a_retreat_of_one_symbol_is_jitter() -> None:
    path = np.array([0, 1, 2, 1, 2, 3, 4, 3, 4, 5])
    assert monotonicity(one_hot(path, 6)) == 1.0
    assert backward_jump(one_hot(path, 6)) == 1


@pytest.mark.parametrize(("leap", "expected"), [(4, 1.0), (5, 0.9)])
def test_a_move_of_more_than_four_symbols_is_a_leap_at_ordinary_rates(leap: int, expected: float) -> None:
    path = np.array([0, 0, 1, 1, 2, 2 + leap, 2 + leap, 7, 7, 7, 7])
    assert monotonicity(one_hot(path, 8)) == pytest.approx(expected)


def test_decoding_that_stopped_early_is_not_excused_as_fast_reading() -> None:
    early = diagonal(4, 40)
    assert argmax_coverage(early) < 0.2
    assert monotonicity(early) == 1.0  # moves of 10 symbols: up to 12 are possible at r = 6
    assert monotonicity(diagonal(3, 60)) == 0.0
    assert attention_score(early) < 0.2


def test_a_single_step_has_no_moves() -> None:
    assert monotonicity(uniform(1, 5)) == 0.0
    assert diagonality(uniform(1, 5)) == diagonality(uniform(5, 1)) == 1.0


def test_ignored_symbols_need_no_attention() -> None:
    skips_two = one_hot(np.repeat([0, 1, 3, 5], 3), 6)
    assert argmax_coverage(skips_two) == 4 / 6
    assert argmax_coverage(skips_two, ignore=np.array([0, 0, 1, 0, 1, 0])) == 1.0
    assert argmax_coverage(skips_two, ignore=np.ones(6, bool)) == 1.0


def test_a_symbol_inside_a_normal_hop_is_read_only_when_steps_are_fewer_than_symbols() -> None:
    assert argmax_coverage(one_hot(np.array([0, 2, 4, 6, 7]), 8)) == 1.0
    assert argmax_coverage(one_hot(np.array([0, 0, 2, 2, 4, 4, 6, 7]), 8)) == 5 / 8


def test_more_blur_never_raises_sharpness_diagonality_or_score() -> None:
    ladder = [blurred(160, 40, width) for width in (0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 20.0)]
    for measure in (sharpness, diagonality, attention_score):
        values = [measure(alignment) for alignment in ladder]
        assert values == sorted(values, reverse=True)


def test_the_score_separates_blur_from_working_attention_at_one_half() -> None:
    blur = blurred(160, 40, 2.0)
    assert sharpness(blur) == pytest.approx(0.2, abs=0.02)
    assert attention_score(blur) < 0.5
    good = blurred(160, 40, 0.5)
    assert 0.6 < sharpness(good) < 0.85
    assert attention_score(good) > 0.8


@pytest.mark.parametrize("part", ["coverage", "monotonicity", "sharpness", "end_reached"])
def test_every_part_of_the_alignment_score_can_fail_it(part: str) -> None:
    perfect = dict(coverage=1.0, monotonicity=1.0, sharpness=1.0, end_reached=1.0)
    assert alignment_score(**perfect) == 1.0
    assert alignment_score(**(perfect | {part: 0.2})) < 0.5
    assert alignment_score(**(perfect | {part: math.nan})) == 0.0


def test_duration_error_is_symmetric_and_bounded() -> None:
    assert duration_ratio(150, 100) == 1.5
    assert duration_error(1.0) == 0.0
    assert duration_error(2.0) == pytest.approx(duration_error(0.5))
    assert duration_error(0.0) == duration_error(math.inf) == duration_error(1e9) == metrics.WORST_DURATION_ERROR


# Time warping


def brute_force_distance(predicted: np.ndarray, reference: np.ndarray) -> float:
    """Every path from corner to corner, by recursion; the mean RMS along the one with the least total."""

    def paths(i: int, j: int) -> list[list[float]]:
        cost = float(np.sqrt(np.mean((predicted[:, i] - reference[:, j]) ** 2)))
        if i == j == 0:
            return [[cost]]
        sources = [(i - 1, j - 1), (i, j - 1), (i - 1, j)]
        return [[*path, cost] for a, b in sources if a >= 0 and b >= 0 for path in paths(a, b)]

    best = min(paths(predicted.shape[1] - 1, reference.shape[1] - 1), key=sum)
    return sum(best) / len(best)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (2, 3), (5, 4), (6, 6)])
def test_the_distance_equals_a_brute_force_search(shape: tuple[int, int]) -> None:
    generator = np.random.default_rng(sum(shape))
    predicted, reference = generator.normal(size=(3, shape[0])), generator.normal(size=(3, shape[1]))
    assert dtw_mel_distance(predicted, reference, std=1.0) == pytest.approx(brute_force_distance(predicted, reference))


def test_the_distance_ignores_lingering_on_frames() -> None:
    mel = np.random.default_rng(0).normal(size=(8, 30)).astype(np.float32)
    assert dtw_mel_distance(mel, mel, std=1.0) == 0.0
    assert dtw_mel_distance(np.repeat(mel, 3, axis=1), mel, std=1.0) == 0.0
    assert dtw_mel_distance(mel, np.repeat(mel, np.arange(30) % 4 + 1, axis=1), std=1.0) == 0.0


def test_the_distance_is_in_corpus_deviations() -> None:
    mel = np.zeros((80, 20))
    assert dtw_mel_distance(mel + 3.0, mel, std=2.0) == pytest.approx(1.5)


def test_more_noise_is_further_away() -> None:
    generator = np.random.default_rng(3)
    mel, noise = generator.normal(size=(20, 40)), generator.normal(size=(20, 40))
    distances = [dtw_mel_distance(mel + scale * noise, mel, std=1.0) for scale in (0.0, 0.1, 0.3, 0.6)]
    assert distances == sorted(distances) and distances[1] == pytest.approx(0.1, rel=0.1)


@pytest.mark.parametrize("predicted", [np.zeros((4, 0)), np.full((4, 3), np.nan), np.full((4, 3), np.inf)])
def test_nothing_decoded_or_nothing_finite_is_infinitely_far(predicted: np.ndarray) -> None:
    assert dtw_mel_distance(predicted, np.zeros((4, 3)), std=1.0) == math.inf


# One utterance and all of them

MEL = np.random.default_rng(1).normal(size=(8, 80)).astype(np.float32)
GOOD = assess(diagonal(80, 20), predicted_mel=MEL, reference_mel=MEL, std=1.0, stop_reason="gate")


def test_a_perfect_utterance_has_composite_zero() -> None:
    summary = summarise([GOOD, GOOD])
    assert composite_score(summary) == pytest.approx(0.0, abs=1e-12)
    assert set(summary) == {
        "alignment",
        "coverage",
        "monotonicity",
        "sharpness",
        "diagonality",
        "end_reached",
        "stop_rate",
        "duration_error",
        "mel_distance",
    }


@pytest.mark.parametrize(("reason", "stopped"), [("gate", True), ("dwell", False), ("budget", False), ("limit", False)])
def test_only_the_gate_counts_as_a_stop(reason: str, stopped: bool) -> None:
    assert replace(GOOD, stop_reason=reason).stopped is stopped


def test_alignment_is_averaged_over_utterances_not_recomputed_from_means() -> None:
    half_fails = summarise([GOOD, replace(GOOD, coverage=0.0, sharpness=0.0)])
    assert half_fails["alignment"] == 0.5


@pytest.mark.parametrize(
    "worse",
    [
        replace(GOOD, mel_distance=0.3),
        replace(GOOD, coverage=0.5),
        replace(GOOD, sharpness=0.2),
        replace(GOOD, end_reached=False),
        replace(GOOD, stop_reason="limit"),
        replace(GOOD, duration_ratio=1.5),
        replace(GOOD, duration_ratio=0.5),
        replace(GOOD, mel_distance=math.inf),
        replace(GOOD, mel_distance=math.nan),
    ],
)
def test_every_fault_raises_the_composite_and_keeps_it_finite(worse: FreeRunning) -> None:
    assert composite_score(summarise([GOOD])) < composite_score(summarise([worse])) <= WORST_COMPOSITE


def test_babble_over_a_clean_diagonal_ranks_behind_speech_with_a_flawed_one() -> None:
    babble = replace(GOOD, mel_distance=0.64)
    flawed_speech = replace(GOOD, coverage=0.9, sharpness=0.5, mel_distance=0.2)
    assert composite_score(summarise([flawed_speech])) < composite_score(summarise([babble]))


@pytest.mark.parametrize("name", ["mel_distance", "alignment", "stop_rate", "duration_error"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_anything_not_finite_gets_the_worst_composite(name: str, value: float) -> None:
    assert composite_score(summarise([GOOD]) | {name: value}) == WORST_COMPOSITE


def test_a_diverged_model_gets_a_finite_summary_and_nearly_the_worst_composite() -> None:
    diverged = assess(
        np.full((80, 20), np.nan),
        predicted_mel=np.full((8, 800), np.nan),
        reference_mel=MEL,
        std=1.0,
        stop_reason="limit",
    )
    summary = summarise([diverged])
    assert all(math.isfinite(value) for value in summary.values())
    assert composite_score(summary) == pytest.approx(WORST_COMPOSITE)


def test_an_empty_decoding_is_assessed_as_a_failure() -> None:
    empty = assess(np.zeros((0, 20)), predicted_mel=np.zeros((8, 0)), reference_mel=MEL, std=1.0, stop_reason="gate")
    assert empty.alignment == 0.0 and empty.duration_ratio == 0.0
    assert math.isfinite(composite_score(summarise([empty])))


def test_a_recording_without_frames_is_refused() -> None:
    with pytest.raises(AssertionError, match="no frames"):
        duration_ratio(10, 0)
