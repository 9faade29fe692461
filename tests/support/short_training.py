"""train.py, with a base voice of few sentences."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import train  # noqa: E402
from training import base_voice  # noqa: E402

base_voice.SENTENCES, base_voice.HELD_OUT = 4, 2
train.leave(train.main(sys.argv[1:]))
