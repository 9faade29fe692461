"""Weights on disk: one file (`checkpoint_file.py`), the directory of a run's checkpoints (`directory.py`), weights
from elsewhere (`weights.py`), and the thread that writes beside training.
"""
