"""Losses beside Tacotron 2's own, which is in loss_function.py: MMI, double decoder consistency, monotonic
attention. `auxiliary.py` adds them up.
"""
