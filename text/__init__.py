"""Texts to symbol ids: `front_end.py` is the entry, `FrontEnd.create(language="ru").symbol_ids(text)`; `readers.py`
and what they use read letters and phonemes of each language, `symbol_sets.py` holds the symbols a voice may have, and
`python -m text "..."` shows every stage. `text_to_sequence` and `sequence_to_text` are for notebooks that have English
letters in NVIDIA's 148 symbols; a voice reads with its own `front_end`.
"""

from collections.abc import Iterable, Sequence


def text_to_sequence(text: str, cleaner_names: Sequence[str] | None = None) -> list[int]:
    """Symbol ids [T_text] of an English text, with ARPAbet in braces. DataError with all problems of the text.

    cleaner_names: None for the English normaliser, which refuses other scripts; `english_cleaners` makes Latin of them.
    """
    from text.front_end import FrontEnd  # here, as submodules of this package load without it

    return FrontEnd.create(cleaners=cleaner_names).symbol_ids(text)


def sequence_to_text(ids: Iterable[int]) -> str:
    """The symbols of these ids as text, ARPAbet in braces."""
    from text.front_end import FrontEnd

    return FrontEnd.create().text_of(ids)
