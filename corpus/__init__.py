"""Recordings and texts on their way to batches; the door is data_utils.py. Begin with `filelists.py`, then
`mel_cache.py` and `batch.py`.
"""
