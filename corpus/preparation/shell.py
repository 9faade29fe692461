"""How verbs speak to a person: the command gives them its console, tests give them lists."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from corpus.findings import SEVERITIES, Finding, counts_by_kind

SHOWN = 10  # findings of each severity


@dataclass(frozen=True)
class Shell:
    """say: one line. progress: for a label, what to call with (done, total)."""

    say: Callable[[str], None]
    progress: Callable[[str], Callable[[int, int], None]]

    def findings(self, findings: Sequence[Finding]) -> None:
        """The first of each severity, with counts by kind."""
        for severity in SEVERITIES:
            own = [finding for finding in findings if finding.severity == severity]
            if own:
                self.say(f"{len(own)} {severity}{'s' if len(own) > 1 else ''}: {counts_by_kind(own)}")
                for finding in own[:SHOWN]:
                    self.say(f"  {finding.message}")
                if len(own) > SHOWN:
                    self.say(f"  ... and {len(own) - SHOWN} more")

    def written(self, path: Path) -> None:
        """Where something was written."""
        self.say(str(path))
