"""Texts to symbol ids: `front_end.py` is the entry, `FrontEnd.create(language="ru").symbol_ids(text)`; `readers.py`
and what they use read letters and phonemes of each language, `symbol_sets.py` holds the symbols a voice may have, and
`python -m text "..."` shows every stage.
"""
