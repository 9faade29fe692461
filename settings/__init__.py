"""What hyperparameters are declared with, and the readers of presets and help texts. hparams.py holds the declarations,
tools.py merges layers of values. Begin with declaration.py.
"""
