"""What a front end guessed in a whole corpus, so that a person looks once and corrects once."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from text.notes import MEANINGS, NOTE_KINDS, Note, NoteKind
from text.pronunciations import WORD, key_of

SHOWN_PLACES = 3
# Kinds that a line of a pronunciation file can correct.
CORRECTABLE: frozenset[NoteKind] = frozenset(
    ("unknown word", "homograph", "doubtful stress", "no stress", "restored yo", "foreign word", "language switch")
)


@dataclass(frozen=True)
class Entry:
    """One guess: how often, and the first places."""

    kind: NoteKind
    what: str
    reading: str
    count: int
    places: tuple[str, ...]


@dataclass
class Ledger:
    """Notes of many texts, counted; `add` them text by text."""

    _counts: Counter[tuple[NoteKind, str, str]] = field(default_factory=Counter)
    _places: dict[tuple[NoteKind, str, str], list[str]] = field(default_factory=dict)

    def add(self, notes: Iterable[Note], *, place: str) -> None:
        """place: `file:line`, or whatever finds the text."""
        for note in notes:
            item = (note.kind, note.what, note.reading)
            self._counts[item] += note.count
            places = self._places.setdefault(item, [])
            if len(places) < SHOWN_PLACES and place not in places:
                places.append(place)

    def entries(self, kind: NoteKind | None = None) -> list[Entry]:
        """By kind, what is most worth correcting first; within a kind the commonest first."""
        wanted = [item for item in self._counts if kind is None or item[0] == kind]
        wanted.sort(key=lambda item: (NOTE_KINDS.index(item[0]), -self._counts[item], item[1]))
        return [Entry(*item, self._counts[item], tuple(self._places[item])) for item in wanted]

    def counts(self) -> dict[NoteKind, int]:
        """How many of each kind that occurs."""
        totals: Counter[NoteKind] = Counter()
        for (kind, _, _), count in self._counts.items():
            totals[kind] += count
        return {kind: totals[kind] for kind in NOTE_KINDS if kind in totals}

    def summary(self) -> str:
        """Such as `12 unknown word (in no dictionary, so read by a guess)`; "" where nothing was guessed."""
        return ", ".join(f"{count} {kind} ({MEANINGS[kind]})" for kind, count in self.counts().items())

    def pronunciation_lines(self) -> list[str]:
        """A file of pronunciations to begin with: each guess as it was read, to be corrected."""
        lines = [
            "# word<TAB>reading, as they were guessed. Correct what is wrong; lines that are right may go.",
            "# A homograph (one spelling, several readings) keeps its #: without it one reading would hold everywhere.",
        ]
        written: set[str] = set()
        for entry in self.entries():
            if entry.kind in CORRECTABLE and WORD.fullmatch(entry.what) and key_of(entry.what) not in written:
                written.add(key_of(entry.what))
                sign = "# " if entry.kind == "homograph" else ""
                lines.append(f"# {entry.kind}, {entry.count} x, {', '.join(entry.places)}")
                lines.append(f"{sign}{entry.what}\t{entry.reading}")
        return lines
