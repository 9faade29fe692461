"""Speaks texts with a checkpoint and counts the words that a recogniser mishears; a process beside training.

The job comes as JSON through standard input, see `listening.Job`; the counts go to standard output.
"""

import contextlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.errors import UserError
from listeners import words
from listeners.recogniser import Recogniser
from speech.voice import Speaker

SEED = 1234  # the same readings of every checkpoint
VOCODER_ITERATIONS = 30  # of Griffin-Lim; 60 change no words


def main() -> int:
    parent = os.getppid()
    job = json.load(sys.stdin)
    with contextlib.suppress(AttributeError, OSError):  # Windows has none
        os.nice(job["niceness"])
    try:
        print(json.dumps(counts(job, parent=parent)))
    except UserError as error:
        print(str(error).partition("\n")[0], file=sys.stderr)
        return error.exit_code
    return 0


def counts(job: Mapping[str, Any], *, parent: int) -> dict[str, int]:
    """Errors and lengths over all texts. An orphan ends at once: nobody waits for its answer."""
    speaker = Speaker.load(Path(job["checkpoint"]))
    recogniser = Recogniser(job["language"], n_threads=1)
    totals = {"wrong_words": 0, "words": 0, "wrong_characters": 0, "characters": 0}
    for each in job["texts"]:
        if os.getppid() != parent:
            raise UserError("training has ended")
        name = each["speaker"] if speaker.names else None
        (said,) = speaker.speak([each["text"]], seed=SEED, n_iter=VOCODER_ITERATIONS, name=name)
        (heard,) = recogniser.transcribe([said.wav], sampling_rate=speaker.hp.sampling_rate)
        in_words = words.word_errors(each["text"], heard, language=job["language"])
        in_characters = words.character_errors(each["text"], heard, language=job["language"])
        found = (in_words.total, in_words.n_words, *in_characters)
        totals = {key: total + count for (key, total), count in zip(totals.items(), found, strict=True)}
    return totals


if __name__ == "__main__":
    sys.exit(main())
