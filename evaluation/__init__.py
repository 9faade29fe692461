"""Judging voices on texts with recordings: `evaluate.py`'s wing.

`texts.py` reads what is to be said, `sounds.py` gets everybody's sounds of it, `measures.py` marks each, `intervals.py`
sums up, `judge.py` puts it together; `table.py`, `page.py` and `blind_test.py` show it.
"""
