"""The search for hyperparameters: `optimization_engine.py` runs it, each trial is an ordinary training in a process."""
