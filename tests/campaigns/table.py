"""A line of the table, and the place where a campaign works."""

from dataclasses import dataclass
from pathlib import Path

from common.errors import UserError
from common.signals import end_on_signal
from hparams import HParams, create_hparams, resolve_hparams
from support.corpora import tiny_settings
from training.options import Options
from training.session import MakeTrainer, train
from training.trainer import Trainer


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    fault: str
    outcome: str
    is_kept: bool

    def __str__(self) -> str:
        return f"| {self.fault} | {self.outcome} | {'yes' if self.is_kept else 'NO'} |"


@dataclass(frozen=True)
class Place:
    """Where a campaign works: a corpus, the settings of its tiny model, and how much of the whole it does."""

    folder: Path
    corpus: Path
    share: float = 1.0

    def hparams(self, more: str = "") -> HParams:
        return create_hparams(tiny_settings(self.corpus, more))

    def times(self, n: int) -> int:
        return max(round(n * self.share), 2)

    def train(self, run: Path, settings: str, last_step: int, *, make_trainer: MakeTrainer = Trainer) -> int:
        """What the ordinary command does. -> its exit code"""
        options = Options(output=run, logs=self.folder / "logs" / run.name, max_steps=last_step)
        resolved = resolve_hparams(overrides=tiny_settings(self.corpus, settings))
        try:
            with end_on_signal():
                return train(resolved, options, make_trainer=make_trainer)
        except UserError as error:
            return error.exit_code
