"""Batches: padding, gate, bands, order, and resuming in the middle of an epoch."""

import math
from collections import Counter

import pytest
import torch

from common.errors import UserError
from corpus.batch import Item, collate
from corpus.batch_plan import BatchPlan, band_edges, item_seed
from corpus.mel_statistics import IDENTITY
from support.corpora import N_MELS, STATS, assert_same_batch, random_lengths


def make_item(index: int, n_tokens: int, n_frames: int) -> Item:
    text = torch.arange(1, n_tokens + 1)
    return Item(index, f"u{index}", text, torch.full((N_MELS, n_frames), -5.0 + index))


def make_plan(seed: int = 0, n: int = 200, **settings: int | bool) -> BatchPlan:
    return BatchPlan(random_lengths(seed, n), **({"batch_size": 8, "seed": seed, "frame_multiple": 4} | settings))


# ---- collate


def test_mel_is_standardised_and_padded_with_standardised_silence() -> None:
    batch = collate([make_item(0, 2, 3), make_item(2, 4, 5)], r=1, stats=STATS)
    assert batch.mel.shape == (2, N_MELS, 5)
    torch.testing.assert_close(batch.mel[0, :, :3], torch.zeros(N_MELS, 3))
    torch.testing.assert_close(batch.mel[1], torch.ones(N_MELS, 5))
    torch.testing.assert_close(batch.mel[0, :, 3:], torch.full((N_MELS, 2), (math.log(1e-5) + 5.0) / 2.0))


def test_mels_as_they_are_get_zeros_after_the_end() -> None:
    batch = collate([make_item(0, 2, 3), make_item(2, 4, 5)], r=1, stats=IDENTITY)
    assert batch.mel[0, :, :3].unique().tolist() == [-5.0]
    assert batch.mel[0, :, 3:].unique().tolist() == [0.0]


@pytest.mark.parametrize(
    ("r", "lengths", "gate"),
    [
        (1, (2, 4), [[0, 1, 1, 1], [0, 0, 0, 1]]),
        (2, (3, 6), [[0, 1, 1], [0, 0, 1]]),
        (2, (4, 5), [[0, 1, 1], [0, 0, 1]]),
        (3, (1, 7), [[1, 1, 1], [0, 0, 1]]),
    ],
)
def test_gate_opens_at_the_last_step_that_holds_a_frame(
    r: int, lengths: tuple[int, int], gate: list[list[float]]
) -> None:
    batch = collate([make_item(i, 2, length) for i, length in enumerate(lengths)], r=r, stats=STATS)
    assert batch.gate.tolist() == gate
    assert batch.mel.shape[2] == r * batch.gate.shape[1]
    assert batch.mel_lengths.tolist() == list(lengths)


def test_pad_to_decides_the_shape_and_keeps_lengths() -> None:
    batch = collate([make_item(0, 2, 3)], r=2, stats=STATS, pad_to=(7, 10))
    assert (batch.text.shape, batch.mel.shape, batch.gate.shape) == ((1, 7), (1, N_MELS, 10), (1, 5))
    assert batch.text.tolist() == [[1, 2, 0, 0, 0, 0, 0]]
    assert (batch.text_lengths.tolist(), batch.mel_lengths.tolist(), batch.n_frames) == ([2], [3], 3)


def test_moving_a_batch_keeps_everything() -> None:
    batch = collate([make_item(0, 2, 3), make_item(1, 4, 5)], r=1, stats=STATS)
    moved = batch.to("cpu", non_blocking=True)
    assert_same_batch(moved, batch)
    assert (moved.n_frames, len(moved)) == (8, 2)
    assert batch.to("meta").mel.is_meta


# ---- bands


def test_edges_waste_as_little_as_any_choice_of_edges() -> None:
    lengths = [3, 4, 4, 9, 10, 11, 30]

    def padded(edges: list[int]) -> int:
        return sum(min(edge for edge in edges if edge >= length) for length in lengths)

    every_choice = [[low, middle, 30] for low in range(3, 30) for middle in range(low, 30)]
    best = band_edges(lengths, n_bands=3, multiple=1)
    assert padded(best) == min(padded(choice) for choice in every_choice)
    assert best == [4, 11, 30]


def test_edges_are_multiples_and_hold_the_longest() -> None:
    edges = band_edges([mel for _, mel in random_lengths(3, 300)], n_bands=16, multiple=12)
    assert all(edge % 12 == 0 for edge in edges)
    assert edges == sorted(set(edges))
    assert edges[-1] >= max(mel for _, mel in random_lengths(3, 300))


def test_shapes_are_those_of_the_bands_in_every_epoch() -> None:
    plan = make_plan(n=300)
    shapes = [Counter(plan.shape(batch) for batch in plan.epoch(epoch)) for epoch in range(5)]
    assert all(set(counts) <= set(plan.bands) for counts in shapes)
    assert all(len(batch) == 8 for batch in plan.epoch(0) if len(batch) != 300 % 8)
    assert sum(counts.total() for counts in shapes) > 5 * len(plan.bands)  # so they do repeat


def test_bands_pad_far_less_than_chance() -> None:
    plain = make_plan(n=1000, use_bands=False).padding_share()
    banded = make_plan(n=1000).padding_share()
    assert banded < 0.07 < 0.4 < plain  # lengths over a whole decade, more than any corpus of sentences


# ---- order


@pytest.mark.parametrize("settings", [{}, {"use_bands": False}, {"max_batch_frames": 2400}, {"shuffle": False},
                                      {"max_batch_frames": 2400, "use_bands": False}])  # fmt: skip
def test_every_utterance_comes_exactly_once_in_a_shape_that_holds_it(settings: dict[str, int]) -> None:
    for seed in range(40):
        n = 1 + 7 * seed
        plan = make_plan(seed, n, **settings)
        batches = plan.epoch(seed % 3)
        assert sorted(i for batch in batches for i in batch) == list(range(n))
        for batch in batches:
            n_tokens, n_frames = plan.shape(batch)
            assert n_frames % 4 == 0
            assert all(plan.lengths[i][0] <= n_tokens and plan.lengths[i][1] <= n_frames for i in batch)
            if "max_batch_frames" in settings:
                assert len(batch) * n_frames <= 2400
            else:
                assert len(batch) <= 8


def test_at_most_one_batch_of_an_epoch_is_short() -> None:
    for seed in range(20):
        assert sum(len(batch) < 8 for batch in make_plan(seed, 100 + seed).epoch(0)) <= 1


def test_order_depends_on_seed_and_epoch_only() -> None:
    assert make_plan().epoch(3) == make_plan().epoch(3)
    assert make_plan().epoch(3) != make_plan().epoch(4)
    assert BatchPlan(make_plan().lengths, batch_size=8, seed=1).epoch(3) != make_plan().epoch(3)


def test_neighbours_change_from_epoch_to_epoch() -> None:
    plan = make_plan()
    assert {frozenset(batch) for batch in plan.epoch(0)} != {frozenset(batch) for batch in plan.epoch(1)}


def test_validation_order_never_changes() -> None:
    plan = make_plan(shuffle=False)
    assert plan.epoch(0) == plan.epoch(9)


def test_utterance_over_the_frame_budget_is_refused_with_the_least_that_works() -> None:
    with pytest.raises(UserError, match=r"max_batch_frames=100 is less than the longest utterance \(204 frames"):
        BatchPlan([(5, 90), (9, 201)], batch_size=2, seed=0, frame_multiple=4, max_batch_frames=100)


def test_item_seeds_differ_by_seed_epoch_and_index() -> None:
    seeds = [item_seed(seed, epoch, index) for seed in range(5) for epoch in range(5) for index in range(5)]
    assert len(set(seeds)) == 125
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert item_seed(1234, 0, 0) == 275544072545218531  # a change would alter every run that goes on
