"""Claims about the split into training and validation."""

from collections import Counter

import pytest

from corpus.list_checks import text_key
from corpus.splitting import Listed, validation_lines


def many(n: int, *, speakers: int = 1) -> list[Listed]:
    return [Listed(f"{'word ' * (1 + i % 17)}{i // 2 if i % 10 == 0 else i}", f"s{i % speakers}") for i in range(n)]


@pytest.mark.parametrize("speakers", [1, 4])
def test_a_split_has_every_speaker_and_length_and_no_text_on_both_sides(speakers: int) -> None:
    lines = many(800, speakers=speakers)
    chosen = validation_lines(lines, seed=3, share=0.05)
    assert 36 <= len(chosen) <= 60
    rest = [i for i in range(800) if i not in set(chosen)]
    assert not {text_key(lines[i].text) for i in chosen} & {text_key(lines[i].text) for i in rest}
    counts = Counter(lines[i].speaker for i in chosen)
    assert len(counts) == speakers and max(counts.values()) - min(counts.values()) <= 6
    lengths = [sum(len(lines[i].text) for i in part) / len(part) for part in (chosen, rest)]
    assert lengths[0] == pytest.approx(lengths[1], rel=0.15)


def test_a_split_depends_on_the_seed_alone() -> None:
    lines = many(400)
    assert validation_lines(lines, seed=3) == validation_lines(lines, seed=3) != validation_lines(lines, seed=4)


def test_prompts_that_all_speakers_read_validate_together() -> None:
    lines = [Listed(f"prompt {i}", f"s{speaker}") for i in range(40) for speaker in range(5)]
    chosen = validation_lines(lines, seed=0, share=0.1)
    assert Counter(lines[i].text for i in chosen) == dict.fromkeys({lines[i].text for i in chosen}, 5)
    assert len(chosen) == 20


def test_a_speaker_of_few_lines_only_trains() -> None:
    lines = [*many(100), *(Listed(f"rare {i}", "rare") for i in range(5))]
    assert all(lines[i].speaker != "rare" for i in validation_lines(lines, seed=0))
    assert validation_lines([], seed=0) == []
