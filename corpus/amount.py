"""Whether there is enough speech to learn from, by what was measured (docs/performance.md)."""

import shlex
from pathlib import Path

LITTLE_MIN = 45  # minutes of training: clearly less than the most that was measured
MEASURED = "from a base voice, 10 minutes left 10 % of the words misheard, and 57 minutes 7 %"


def little_speech(seconds: float, listed: Path, *, begins_with_voice: bool = False) -> str:
    """What to expect of so little speech and what to do, in one line; "" where it is enough. listed: its list.

    begins_with_voice: whether training begins with the weights of another voice.
    """
    if seconds >= 60 * LITTLE_MIN:
        return ""
    amount = f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{seconds:.0f} seconds"
    base = "" if begins_with_voice else "train with --from-base and phonemes (docs/your_own_voice.md), and "
    return (
        f"little speech: {amount} to train on; {MEASURED}. What helps: {base}record more, "
        f"`python prepare_data.py record-next {shlex.quote(str(listed))} --pool TEXT` chooses the sentences"
    )
