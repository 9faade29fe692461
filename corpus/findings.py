"""What is found wrong with a corpus: one shape for every check, shared by training and by `prepare_data.py check`."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

# an error makes the line unusable; a warning lets it train; a note harms nothing here, but other programs may stumble
Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a line, a recording or a list.

    kind: a short fixed name, such as "clipped". detail: what it is, with its value and unit. advice: what to do next.
    value and limit: what was measured and what is allowed, where both are numbers. source and line: where, if known; a
    line of 0 means the whole list.
    """

    kind: str
    severity: Severity
    detail: str
    advice: str
    value: float | None = None
    limit: float | None = None
    source: Path | None = None
    line: int = 0

    @property
    def message(self) -> str:
        """`file:line: what; what to do`."""
        where = "" if self.source is None else f"{self.source}:{self.line}: " if self.line else f"{self.source}: "
        return f"{where}{self.detail}; {self.advice}"

    def at(self, source: Path, line: int = 0) -> "Finding":
        """The same finding with its place."""
        return replace(self, source=source, line=line)

    def as_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        return asdict(self) | {"source": None if self.source is None else str(self.source)}


def error(kind: str, detail: str, advice: str, *, value: float | None = None, limit: float | None = None) -> Finding:
    """Makes the line, or the list, unusable."""
    return Finding(kind, "error", detail, advice, value, limit)


def warning(kind: str, detail: str, advice: str, *, value: float | None = None, limit: float | None = None) -> Finding:
    """Lets the line train."""
    return Finding(kind, "warning", detail, advice, value, limit)


def note(kind: str, detail: str, advice: str) -> Finding:
    """Harms nothing here."""
    return Finding(kind, "note", detail, advice)


def errors_of(findings: Iterable[Finding]) -> list[Finding]:
    """Those that make a line unusable."""
    return [finding for finding in findings if finding.severity == "error"]


def counts_by_kind(findings: Iterable[Finding]) -> str:
    """Such as `3 clipped, 1 silent`: the most frequent kind first."""
    return ", ".join(f"{n} {kind}" for kind, n in Counter(finding.kind for finding in findings).most_common())


def shown(text: str, *, length: int = 60) -> str:
    """An excerpt that is safe in one line of a terminal: control characters escaped, long texts cut."""
    escaped = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text[: length + 1])
    return escaped if len(text) <= length else escaped[:length] + "..."
