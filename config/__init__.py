"""Settings shown, documented and compared; presets and the help texts of the parameters. They are declared in
hparams.py and merged in tools.py.
"""
