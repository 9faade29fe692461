"""Models that listen in a person's place: to the words, to the quality of the sound, to whose voice it is.

All are optional, run offline on weights that their packages carry, and are loaded when they are first asked.
"""
