"""Balanced sampling: even speakers, even durations, the same for a seed and epoch, and through the trainer."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from corpus.balanced_sampling import DURATION_BANDS, balanced_draw, duration_bands
from corpus.batch_plan import BatchPlan
from data_utils import plan_batches
from hparams import HParams
from support.runs import assert_same_run, resumed, trained, trainer_of
from training.trainer import Limits

SPEAKERS = ["a"] * 80 + ["b"] * 15 + [None] * 5
LENGTHS = [(10, 20 + 4 * (i % 40)) for i in range(100)]


def make_plan(seed: int = 1, use_bands: bool = True, batch_size: int = 8) -> BatchPlan:
    return BatchPlan(LENGTHS, batch_size=batch_size, seed=seed, use_bands=use_bands, speakers=SPEAKERS)


def drawn(plan: BatchPlan, epoch: int) -> list[int]:
    return [i for batch in plan.epoch(epoch) for i in batch]


def test_every_speaker_gets_the_same_share_of_every_epoch() -> None:
    for use_bands in (True, False):
        plan = make_plan(use_bands=use_bands)
        for epoch in range(3):
            counts = Counter(SPEAKERS[i] for i in drawn(plan, epoch))
            assert sorted(counts.values()) == [33, 33, 34]


def test_within_a_speaker_every_duration_band_gets_the_same_share() -> None:
    bands = duration_bands([mel for _, mel in LENGTHS])
    counts = Counter(bands[i] for i in drawn(make_plan(), 0) if SPEAKERS[i] == "a")
    assert len(counts) == DURATION_BANDS and max(counts.values()) - min(counts.values()) <= 1
    natural = Counter(bands[:80].tolist())
    assert max(natural.values()) > 2 * min(natural.values())  # so there was something to balance


def test_a_small_group_repeats_each_of_its_utterances_equally_often() -> None:
    chosen = balanced_draw(["a"] * 9 + ["b"] * 2, [0] * 11, n=11, generator=np.random.default_rng(0))
    counts = Counter(i for i in chosen.tolist() if i >= 9)
    assert max(counts.values()) - min(counts.values()) <= 1 and sum(counts.values()) in (5, 6)


def test_the_draw_depends_on_seed_and_epoch_only() -> None:
    assert make_plan().epoch(3) == make_plan().epoch(3)
    assert drawn(make_plan(), 3) != drawn(make_plan(), 4)
    assert drawn(make_plan(), 3) != drawn(make_plan(seed=2), 3)


def test_over_epochs_everybody_is_heard() -> None:
    plan = make_plan()
    assert {i for epoch in range(40) for i in drawn(plan, epoch)} == set(range(100))


def test_bands_are_even_in_the_logarithm_of_the_length() -> None:
    assert duration_bands([10, 19, 21, 41, 81, 160]).tolist() == [0, 0, 1, 2, 3, 3]
    assert duration_bands([50, 50]).tolist() == [0, 0]


def test_only_training_is_balanced_and_only_where_asked(tiny: Callable[..., HParams], tmp_path: Path) -> None:
    trainer = trainer_of(tiny("use_balanced_sampling=True"), tmp_path)
    assert trainer.batches.plan.speakers == [None] * 5 and trainer.validator.plan.speakers == ()
    assert plan_batches(trainer.corpus.train, tiny()).speakers == ()


def test_a_balanced_run_resumes_bit_exactly_in_the_middle_of_an_epoch(
    tiny: Callable[..., HParams], tmp_path: Path
) -> None:
    hp = tiny("use_balanced_sampling=True")
    straight = trained(hp, tmp_path / "straight", 7)
    first = trainer_of(hp, tmp_path / "cut", limits=Limits(max_steps=7))
    first.interrupt_at = 4
    first.fit()
    second = resumed(hp, tmp_path / "cut", 7)
    assert first.seen + second.seen == straight.seen
    assert_same_run(straight, second)
