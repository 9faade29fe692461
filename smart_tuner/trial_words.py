"""How well a trial is understood: a recognizer hears its last checkpoint, in a process of its own."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from checkpointing import directory as checkpoint_dir
from common.errors import UserError
from common.log import LOG
from data_utils import Corpus
from smart_tuner.trainer_wrapper import TrialOutcome
from training.listening import Child, Heard, Text, check_listener, validation_texts

LOOK_EVERY_S = 0.5
LISTENING_S = 60.0  # that a plan keeps for each trial: 20 s of a quiet core, a minute of a busy one
ATTEMPTS, BETWEEN_S = 3, 20.0  # a process that the system killed may live the next time


@dataclass(frozen=True)
class TrialListener:
    """Hears every trial of a study say the same texts."""

    language: str
    texts: Sequence[Text]
    between_s: float = BETWEEN_S  # attempts

    @classmethod
    def of(cls, corpus: Corpus) -> "TrialListener":
        """UserError, with what to install, where nobody can listen."""
        language, texts = corpus.front_end.language.code, validation_texts(corpus)
        try:
            check_listener(language, texts)
        except UserError as error:
            raise UserError(f"--score-words: {error}") from None
        return cls(language, texts)

    def hear(self, outcome: TrialOutcome, directory: Path, *, is_ending: Callable[[], bool]) -> TrialOutcome:
        """The outcome of a trial in `directory` that has finished, with what was misheard; others as they are.

        UserError where it can't be heard: a value without its words would not compare.
        """
        if outcome.ending != "finished":
            return outcome
        path = checkpoint_dir.newest_good(directory / "checkpoints")
        if path is None:
            LOG.warning("%s: all of it counts as misheard, as it has no checkpoint", directory.name)
            return replace(outcome, misheard=1.0)
        for attempt in range(ATTEMPTS):
            found = self._heard(path, is_ending)
            if isinstance(found, Heard):
                return replace(outcome, misheard=min(1.0, found.cer))
            if found is None:
                return replace(outcome, ending="interrupted")
            LOG.warning("%s: attempt %d of %d to hear it failed: %s", directory.name, attempt + 1, ATTEMPTS, found)
            if attempt + 1 < ATTEMPTS and not waited(self.between_s, is_ending):
                return replace(outcome, ending="interrupted")
        raise UserError(f"--score-words: {directory.name} can't be heard, see above; the same command hears it again")

    def _heard(self, checkpoint: Path, is_ending: Callable[[], bool]) -> Heard | str | None:
        """What was heard, or why nothing was; None where the search is to end."""
        try:
            child = Child(checkpoint, self.language, self.texts, niceness=0)  # the trial's processors are free now
        except OSError as error:
            return str(error)
        while not child.is_done:
            if is_ending():
                child.end()
                return None
            time.sleep(LOOK_EVERY_S)
        return child.result()


def waited(seconds: float, is_ending: Callable[[], bool]) -> bool:
    """False where the search is to end before."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if is_ending():
            return False
        time.sleep(min(LOOK_EVERY_S, seconds))
    return True
