"""A line of the table, and the place where a campaign works."""

from dataclasses import dataclass
from pathlib import Path

import train
from hparams import HParams, create_hparams
from support.corpora import tiny_settings


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

    def train(self, run: Path, settings: str, last_step: int) -> int:
        """The ordinary command. -> its exit code"""
        to = ["-o", str(run), "-l", str(self.folder / "logs" / run.name), "--max-steps", str(last_step)]
        return train.main([*to, "--hparams", tiny_settings(self.corpus, settings)])
