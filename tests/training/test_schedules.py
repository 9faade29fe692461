"""Learning rate over the steps, and what plateau decay and early stopping count."""

from math import inf

import pytest

from hparams import create_hparams
from training.progress import Progress
from training.schedules import learning_rate


def judged(progress: Progress, scores: list[tuple[int, float, float]], settings: str) -> Progress:
    """Takes in (step, score, alignment) of one validation after another."""
    hp = create_hparams(settings)
    for progress.step, score, alignment in scores:
        progress.update_best(score, alignment, hp)
    return progress


@pytest.mark.parametrize(
    ("step", "settings", "scale", "expected"),
    [
        (1, "warmup_steps=4", 1.0, 0.25e-3),
        (4, "warmup_steps=4", 1.0, 1e-3),
        (1, "warmup_steps=0", 1.0, 1e-3),
        (99, "warmup_steps=4", 0.5, 0.5e-3),
        (99, "warmup_steps=4", 1e-9, 1e-5),  # the floor
        (2, "warmup_steps=4", 1e-9, 0.5e-5),  # warm-up acts on the floor too
        (10, "warmup_steps=0,anneal_start=10,anneal_steps=20", 1.0, 1e-3),
        (20, "warmup_steps=0,anneal_start=10,anneal_steps=20", 1.0, 1e-4),  # half-way between 1e-3 and 1e-5
        (30, "warmup_steps=0,anneal_start=10,anneal_steps=20", 1.0, 1e-5),
        (9999, "warmup_steps=0,anneal_start=10,anneal_steps=20", 1.0, 1e-5),
        (20, "warmup_steps=0,anneal_start=10,anneal_steps=20", 0.1, 1e-4),  # annealing takes no plateau cuts
    ],
)
def test_learning_rate_follows_the_table(step: int, settings: str, scale: float, expected: float) -> None:
    hp = create_hparams(f"learning_rate=1e-3,learning_rate_min=1e-5,{settings}")
    assert learning_rate(step, hp, scale=scale) == pytest.approx(expected, rel=1e-12)


def test_the_best_score_is_kept_with_its_step() -> None:
    progress = judged(Progress(), [(1, 3.0, 0.0), (2, 2.0, 0.0), (3, 2.5, 0.0)], "warmup_steps=0")
    assert (progress.best_score, progress.best_step) == (2.0, 2)


@pytest.mark.parametrize(
    ("alignments", "warmup_steps", "aligned_at"),
    [((0.4, 0.4, 0.4), 0, -1), ((0.4, 0.5, 0.4), 0, 20), ((0.9, 0.9, 0.9), 25, 30), ((0.9, 0.9, 0.4), 25, -1)],
)
def test_counting_starts_at_the_first_alignment_after_warm_up(
    alignments: tuple[float, ...], warmup_steps: int, aligned_at: int
) -> None:
    scores = [(10 * (i + 1), 1.0, alignment) for i, alignment in enumerate(alignments)]
    progress = judged(Progress(), scores, f"alignment_diagonal_threshold=0.5,warmup_steps={warmup_steps}")
    assert progress.aligned_at == aligned_at


def test_early_stopping_counts_validations_only_once_aligned() -> None:
    hp = create_hparams("warmup_steps=0,early_stopping_patience=2")
    progress = judged(Progress(), [(i, 1.0, 0.0) for i in range(50)], "warmup_steps=0")
    assert not progress.should_stop_early(hp)
    progress = judged(progress, [(50, 1.0, 0.9), (51, 1.0, 0.0)], "warmup_steps=0")  # alignment may be lost again
    assert not progress.should_stop_early(hp)
    assert judged(progress, [(52, 1.0, 0.9)], "warmup_steps=0").should_stop_early(hp)


def test_early_stopping_can_be_switched_off() -> None:
    assert not Progress(bad_validations=99).should_stop_early(create_hparams("early_stopping=False"))


def test_gains_below_min_delta_do_not_count_alone_but_add_up() -> None:
    settings = "warmup_steps=0,early_stopping_min_delta=0.1,early_stopping_patience=3"
    flat = judged(Progress(), [(i, 1.0 - 0.01 * i, 0.9) for i in range(4)], settings)
    assert flat.should_stop_early(create_hparams(settings))
    creeping = judged(Progress(), [(i, 1.0 - 0.06 * i, 0.9) for i in range(40)], settings)
    assert not creeping.should_stop_early(create_hparams(settings))


PLATEAU = "warmup_steps=0,learning_rate=1e-3,learning_rate_min=3e-4,learning_rate_decay_patience=100"


def cuts(progress: Progress, steps: range, settings: str, *, score: float = 1.0) -> list[int]:
    """Steps at which the rate was cut, with the same score at each validation."""
    hp, found = create_hparams(settings), []
    for progress.step in steps:
        if progress.plateau_reached(score, hp):
            found.append(progress.step)
    return found


def test_plateau_patience_is_counted_in_steps_and_cuts_end_at_the_floor() -> None:
    progress = Progress(aligned_at=0)
    assert cuts(progress, range(10, 1000, 10), PLATEAU) == [110, 210]  # x 0.5, then to the floor, then never again
    assert progress.learning_rate_scale == pytest.approx(0.3)


def test_a_better_score_restarts_the_plateau() -> None:
    progress = Progress(aligned_at=0)
    assert cuts(progress, range(10, 101, 10), PLATEAU) == []
    assert cuts(progress, range(110, 201, 10), PLATEAU, score=0.9) == []


@pytest.mark.parametrize("settings", [PLATEAU, PLATEAU + ",anneal_steps=1000"])
def test_no_cut_before_alignment_or_while_annealing(settings: str) -> None:
    progress = Progress(aligned_at=0 if "anneal" in settings else -1)
    assert cuts(progress, range(0, 10000, 100), settings) == []
    assert progress.learning_rate_scale == 1.0 and progress.plateau_best == inf


def test_the_counters_of_a_checkpoint_of_version_0_1_0_are_understood() -> None:
    progress = Progress(step=7, skipped_ranges=[((0, 1), (0, 3))])
    old = {"passed_over" if name == "skipped_ranges" else name: value for name, value in vars(progress).items()}
    assert Progress.of(old) == Progress.of(vars(progress)) == progress
