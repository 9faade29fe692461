"""The logger of the project; every module logs below it."""

import logging

LOG = logging.getLogger("tacotron2")
