"""Times of symbols and words out of attention."""

import numpy as np
import pytest

from speech.timing import TimedText, monotonic_path, symbol_edges, timed_words, within, written_words


def attention(path: list[int], n_symbols: int, *, blur: float = 0.1) -> np.ndarray:
    """[T_dec, T_text], most of each row on path[t]."""
    alignment = np.full((len(path), n_symbols), blur / n_symbols)
    alignment[np.arange(len(path)), path] += 1 - blur
    return alignment


def test_a_symbol_is_said_while_attention_rests_on_it() -> None:
    edges = symbol_edges(attention([0, 0, 0, 1, 2, 2], 3), step_s=0.1)
    np.testing.assert_allclose(edges, [0, 0.3, 0.4, 0.6])


def test_symbols_that_no_step_rests_on_share_the_time_before_them() -> None:
    edges = symbol_edges(attention([0, 2, 4], 6), step_s=0.1)
    np.testing.assert_allclose(edges, [0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3])


def test_one_stray_step_does_not_turn_time_back() -> None:
    path = monotonic_path(attention([0, 1, 3, 1, 2, 3], 4))
    assert path.tolist() == [0, 1, 1, 1, 2, 3]


@pytest.mark.parametrize("seed", range(5))
def test_edges_never_fall_and_cover_the_whole(seed: int) -> None:
    alignment = np.random.default_rng(seed).dirichlet(np.ones(12), size=30)
    edges = symbol_edges(alignment, step_s=0.02)
    assert (np.diff(edges) >= 0).all() and edges[0] == 0 and edges[-1] == pytest.approx(0.6)


def test_the_path_is_the_likeliest_that_never_goes_back() -> None:
    alignment = np.random.default_rng(1).dirichlet(np.ones(4), size=5)
    best = max(
        (sum(np.log(alignment[t, n]) for t, n in enumerate(path)), path)
        for path in np.ndindex(4, 4, 4, 4, 4)
        if list(path) == sorted(path)
    )[1]
    assert tuple(monotonic_path(alignment)) == best


def test_words_carry_the_names_that_a_person_wrote() -> None:
    symbols = list("doctor no, go.")
    edges = np.arange(len(symbols) + 1) * 0.1
    words = timed_words(symbols, edges, written=written_words("Dr. No, - go."))
    assert [(w.text, round(w.start_s, 1), round(w.end_s, 1)) for w in words] == [
        ("Dr.", 0.0, 0.6), ("No,", 0.7, 0.9), ("go.", 1.1, 1.3)
    ]  # fmt: skip


def test_words_are_named_as_they_are_read_where_their_number_differs() -> None:
    words = timed_words(list("twenty two"), np.arange(11) * 0.1, written=["22"])
    assert [word.text for word in words] == ["twenty", "two"]


def test_times_follow_what_was_cut_from_the_sound() -> None:
    (word,) = within([TimedText("a", 0.02, 0.9)], cut_before_s=0.1, duration_s=0.7)
    assert (word.start_s, word.end_s) == (0.0, 0.7)
