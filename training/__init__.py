"""Training a voice, the door is train.py: one launch from settings to exit code (`session.py`), the loop
(`trainer.py`), one optimiser step (`train_step.py`), faults and the way back from them.
"""
