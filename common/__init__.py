"""What has no subject of its own: errors, files, logging, signals, translations. Imports nothing else of the
project. Begin with `errors.py` and `files.py`.
"""
