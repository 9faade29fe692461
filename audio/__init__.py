"""Sound and mels without trained weights: recordings in and out (`recordings.py`), log-mels (`mel.py`), Griffin-
Lim, clean-up of synthesised sound.
"""
