"""Claims about the time that texts take: what is far off is found, and nothing else."""

import numpy as np
import pytest

from corpus.speech_rate import Spoken, check_speech_rate, speech_rates

WORDS = "red green blue old new big small cat dog house river tree apple walks sings near far".split()


def natural_lines(n: int, *, seed: int = 0, rate: float = 15.0) -> list[Spoken]:
    """Sentences of 3 to 12 words, read at about `rate` characters a second, give or take 10 %."""
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(WORDS, rng.integers(3, 13))) + "." for _ in range(n)]
    return [Spoken(text, float(len(text) / rate * np.exp(0.1 * rng.standard_normal()))) for text in texts]


def test_a_minute_for_four_words_is_an_error_among_others() -> None:
    lines = [*natural_lines(12), Spoken("The long one.", 160.0)]
    findings = check_speech_rate(lines)
    assert findings[-1] is not None and findings[-1].severity == "error"
    assert "160.0 s of sound for 13 characters" in findings[-1].message
    assert findings[:-1] == [None] * 12


@pytest.mark.parametrize("n", [60, 400])
def test_lines_that_take_half_or_double_time_are_found_in_a_corpus(n: int) -> None:
    lines = natural_lines(n)
    odd = {3: 0.45, 20: 2.2, 40: 2.5}
    lines = [Spoken(line.text, line.sound_s * odd.get(i, 1.0)) for i, line in enumerate(lines)]
    found = {i for i, finding in enumerate(check_speech_rate(lines)) if finding is not None}
    assert found >= set(odd)
    assert len(found - set(odd)) <= max(1, n // 100)


def test_a_slow_speaker_is_not_odd_beside_a_fast_one() -> None:
    slow = [Spoken(line.text, line.sound_s, "slow") for line in natural_lines(60, seed=1, rate=7)]
    fast = [Spoken(line.text, line.sound_s, "fast") for line in natural_lines(60, seed=2, rate=21)]
    assert sum(finding is not None for finding in check_speech_rate([*slow, *fast])) <= 1


def test_one_line_and_a_line_without_sound_have_nothing_to_be_compared_with() -> None:
    assert check_speech_rate([Spoken("alone", 3.0)]) == [None]
    assert check_speech_rate([]) == []
    rates = speech_rates([*natural_lines(60), Spoken("silent", 0.0), Spoken("  ", 1.0)])
    assert rates[-2:] == [None, None] and all(rate is not None for rate in rates[:-2])


def test_a_third_of_wrong_pairs_changes_no_verdict_on_the_others() -> None:
    lines = natural_lines(300)
    swapped = [Spoken(lines[i].text, lines[(i + 100) % 300].sound_s) if i < 100 else lines[i] for i in range(300)]
    findings = check_speech_rate(swapped)
    assert sum(finding is not None for finding in findings[100:]) <= 4
    assert sum(finding is not None for finding in findings[:100]) >= 25
