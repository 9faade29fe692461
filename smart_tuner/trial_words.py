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
ATTEMPTS = 2  # a process that the system killed may live the next time


@dataclass(frozen=True)
class TrialListener:
    """Hears every trial of a study say the same texts."""

    language: str
    texts: Sequence[Text]

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
        """The outcome of a trial in `directory` that has finished, with what was misheard; others as they are."""
        if outcome.ending != "finished":
            return outcome
        problem = "it has no checkpoint"
        path = checkpoint_dir.newest_good(directory / "checkpoints")
        for _ in range(ATTEMPTS if path is not None else 0):
            assert path is not None
            found = self._heard(path, is_ending)
            if isinstance(found, Heard):
                return replace(outcome, misheard=min(1.0, found.cer))
            if found is None:
                return replace(outcome, ending="interrupted")
            problem = found
        LOG.warning("%s: not heard, so all of it counts as misheard: %s", directory.name, problem)
        return replace(outcome, misheard=1.0)

    def _heard(self, checkpoint: Path, is_ending: Callable[[], bool]) -> Heard | str | None:
        """What was heard, or why nothing was; None where the search is to end."""
        try:
            child = Child(checkpoint, self.language, self.texts)
        except OSError as error:
            return str(error)
        while not child.is_done:
            if is_ending():
                child.end()
                return None
            time.sleep(LOOK_EVERY_S)
        return child.result()
