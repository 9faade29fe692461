"""Claims about coverage: what is counted, and which sentences add most."""

import random
from collections import Counter

from corpus.coverage import _gain, coverage_of, suggest, units_of

RUSSIAN = "\u0417\u0430\u0301\u043c\u043e\u043a \u0441\u0442\u043e\u0438\u0442?"


def test_units_are_symbols_pairs_with_edges_and_the_ending() -> None:
    units = units_of("A cab, a cab?")
    assert units["symbol", "a"] == 4 and units["symbol", "b"] == 2
    assert units["pair", "#c"] == units["pair", "ca"] == units["pair", "b#"] == 2
    assert units["ending", "question"] == 1
    assert ("symbol", ",") not in units


def test_a_stress_mark_belongs_to_its_vowel() -> None:
    assert units_of(RUSSIAN)["symbol", "\u0430\u0301"] == 1


def test_a_front_end_may_spell_the_words() -> None:
    units = units_of("one two", spell=lambda word: {"one": ["W", "AH1", "N"], "two": ["T", "UW1"]}[word])
    assert units["pair", "AH1N"] == 1 and units["symbol", "UW1"] == 1


def test_a_sentence_with_what_was_never_heard_comes_first() -> None:
    have = coverage_of(["the cat sat on the mat"] * 20)
    pool = ["the cat sat on a mat", "a mat on the cat sat", "jazz quiz by fox", "fox quiz by jazz"]
    chosen = suggest(have, pool, 2)
    assert {suggestion.text for suggestion in chosen} == {"jazz quiz by fox", "fox quiz by jazz"}
    assert "z" in chosen[0].adds


def test_the_lazy_queue_chooses_as_a_search_of_everything_each_time() -> None:
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnop", k=rng.randint(2, 6))) for _ in range(40)]
    pool = list(dict.fromkeys(" ".join(rng.choices(words, k=rng.randint(3, 8))) + rng.choice(".?") for _ in range(30)))
    units = {text: units_of(text) for text in pool}
    in_pool = Counter(unit for counted in units.values() for unit in counted)
    slow: list[str] = []
    for _ in range(8):
        have = coverage_of(slow).counts
        slow.append(
            max((text for text in pool if text not in slow), key=lambda text: _gain(units[text], have, in_pool))
        )
    assert [suggestion.text for suggestion in suggest(coverage_of([]), pool, 8)] == slow


def test_chosen_sentences_cover_more_than_as_many_by_chance() -> None:
    rng = random.Random(1)
    words = ["".join(rng.choices("aaaaeeeebcdfghjklmnpqrstvwxz", k=rng.randint(2, 7))) for _ in range(300)]
    pool = [" ".join(rng.choices(words, k=6)) + "." for _ in range(400)]
    by_choice = coverage_of(suggestion.text for suggestion in suggest(coverage_of([]), pool, 30))
    by_chance = [len(coverage_of(rng.sample(pool, 30)).of("pair")) for _ in range(10)]
    assert len(by_choice.of("pair")) > max(by_chance)


def test_what_is_recorded_or_too_long_is_not_suggested() -> None:
    pool = ["one two three four", "word " * 30, "a b"]
    assert suggest(coverage_of([]), pool * 2, 5, known=["one two three four"]) == []
