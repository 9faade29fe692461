"""Settings shown, documented and compared; the files of presets and help texts. Settings are declared in hparams.py
and merged in tools.py.
"""
