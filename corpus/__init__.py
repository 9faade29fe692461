"""Recordings and texts on their way to batches; the door is data_utils.py. Begin with `filelists.py`, then
`mel_cache.py` and `batch.py`. What is wrong with a corpus is found by `list_checks.py`, `recording_checks.py` and
`doctor.py`; `preparation/` holds the verbs of prepare_data.py.
"""
