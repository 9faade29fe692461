"""What hyperparameters are declared with, the presets, and what a language decides. hparams.py holds the declarations,
tools.py merges layers of values. Begin with declaration.py.
"""
