"""Balanced sampling: which utterances an epoch draws when every speaker and every duration is to count the same."""

from collections.abc import Hashable, Sequence

import numpy as np

DURATION_BANDS = 4  # more would leave bands of a handful of utterances, repeated dozens of times an epoch


def duration_bands(n_frames: Sequence[int]) -> np.ndarray:
    """The band of each utterance, 0 to DURATION_BANDS - 1: equal intervals of the logarithm of its length. [N]"""
    logs = np.log(np.maximum(n_frames, 1))
    span = logs.max() - logs.min()
    if span == 0.0:
        return np.zeros(len(logs), dtype=np.int64)
    return np.minimum((DURATION_BANDS * (logs - logs.min()) / span).astype(np.int64), DURATION_BANDS - 1)


def balanced_draw(
    speakers: Sequence[Hashable], bands: Sequence[int], *, n: int, generator: np.random.Generator
) -> np.ndarray:
    """n indices, in order of their groups: speakers as evenly as n allows, within each its duration bands. [n]

    A group smaller than its share repeats its utterances, each as often as any other, give or take one; a larger one
    leaves some out, others in another epoch.
    """
    chosen: list[int] = []
    by_speaker = _grouped(speakers, range(len(speakers)))
    for members, share in zip(by_speaker, _shares(n, len(by_speaker), generator), strict=True):
        by_band = _grouped([bands[i] for i in members], members)
        for group, part in zip(by_band, _shares(share, len(by_band), generator), strict=True):
            rounds = [generator.permutation(group) for _ in range(-(-part // len(group)))]
            chosen += np.concatenate(rounds)[:part].tolist() if rounds else []
    return np.array(chosen, dtype=np.int64)


def _grouped(keys: Sequence[Hashable], members: Sequence[int]) -> list[list[int]]:
    """Members by key, groups in order of first appearance, so that nothing hangs on how keys hash."""
    groups: dict[Hashable, list[int]] = {}
    for key, member in zip(keys, members, strict=True):
        groups.setdefault(key, []).append(member)
    return list(groups.values())


def _shares(n: int, n_groups: int, generator: np.random.Generator) -> list[int]:
    """n split evenly; who gets one of the remainder is drawn."""
    shares = np.full(n_groups, n // n_groups)
    shares[generator.permutation(n_groups)[: n % n_groups]] += 1
    return shares.tolist()
