"""Fast equals of the loops in `modules/decoder_loops.py`, which define what they must compute. Begin with `backend.py`,
which says what runs where and why not; `teacher_forced.py` is the entry of training, `inference.py` that of speech.
"""
