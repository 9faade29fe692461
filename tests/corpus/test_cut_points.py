"""Claims about where recordings are cut."""

import numpy as np

from corpus.cut_points import Pause, pauses_between, plan_pieces
from listeners.recogniser import TimedWord


def said(text: str, *, start: float = 0.0, word_s: float = 0.4, probability: float = 0.9) -> list[TimedWord]:
    """Words of a text one after the other."""
    return [
        TimedWord(start + i * word_s, start + (i + 1) * word_s, word, probability)
        for i, word in enumerate(text.split())
    ]


def test_pieces_end_at_sentences_where_there_are_pauses_inside_too() -> None:
    words = [*said("One two three,"), *said("four five six.", start=1.6), *said("Seven eight nine ten.", start=3.4)]
    pauses = [Pause(0, 0.05), Pause(1.25, 1.6), Pause(2.85, 3.35), Pause(5.05, 6.0)]
    pieces = plan_pieces(words, pauses)
    assert [piece.text for piece in pieces] == ["One two three, four five six.", "Seven eight nine ten."]
    assert all(a.end_s <= b.start_s for a, b in zip(pieces, pieces[1:], strict=False))


def test_a_sentence_longer_than_allowed_is_cut_at_a_clause() -> None:
    words = [*said("a " * 14 + "b,"), *said("c " * 14 + "d.", start=6.5)]
    pauses = [Pause(0, 0), Pause(3.0, 3.2), Pause(6.05, 6.45), Pause(12.55, 13)]
    pieces = plan_pieces(words, pauses, longest_s=8.0)
    assert [piece.text[-2:] for piece in pieces] == ["b,", "d."]


def test_no_word_is_lost_and_none_said_twice() -> None:
    rng = np.random.default_rng(0)
    words, pauses, t = [], [Pause(0.0, 0.3)], 0.3
    for i in range(60):
        part = said(" ".join(f"w{i}_{k}" for k in range(rng.integers(1, 9))) + "."[: rng.integers(0, 2)], start=t)
        words += part
        t = part[-1].end_s
        gap = float(rng.uniform(0.2, 1.0))
        pauses.append(Pause(t, t + gap))
        t += gap
    pieces = plan_pieces(words, pauses)
    assert [word.text for piece in pieces for word in piece.words] == [word.text for word in words]
    assert max(piece.length_s for piece in pieces) < 12.5


def test_silence_gives_no_piece_and_speech_to_the_edges_still_can_be_cut() -> None:
    assert plan_pieces([], [Pause(0, 10)]) == []
    pauses = pauses_between([(0.0, 2.0)], length_s=2.0)
    assert [piece.text for piece in plan_pieces(said("one two"), pauses)] == ["one two"]


def test_short_pauses_are_no_places_to_cut() -> None:
    pauses = pauses_between([(0.1, 1.0), (1.1, 2.0), (2.5, 3.0)], length_s=3.0)
    assert [(p.start_s, p.end_s) for p in pauses] == [(0.0, 0.1), (2.0, 2.5), (3.0, 3.0)]
