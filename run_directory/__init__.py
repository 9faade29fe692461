"""The files of a run, read and written without torch: where they lie (`paths.py`), what is recorded (`records.py`,
`metrics_log.py`), and what they tell however the run was left (`reader.py`).
"""
