"""Which symbols a voice has: NVIDIA's 148, IPA, Russian letters, the letters of a corpus, or a file's.

The order of the symbols is the order of the embedding rows, so a list is a file format: it is kept in the checkpoint,
and the named sets here must never be reordered, only extended at their end.

A file, one symbol a line, holds single characters (a combining mark alone is one), `<space>`, or ARPAbet phonemes such
as `@AA1`. Padding is always id 0: it is put there unless the first line is `_`.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import groupby
from pathlib import Path

from common.encodings import NotText
from common.errors import UserError, format_problems
from common.files import read_given_text
from text.symbols import ARPABET, PAD, PHONEME_PREFIX, needs_sound
from text.symbols import symbols as nvidia_symbols

DATA = Path(__file__).parent / "data"
NAMED_SETS = ("nvidia", "ipa", "russian", "corpus")
SPACE_LINE = "<space>"
_PHONEMES = frozenset(PHONEME_PREFIX + phoneme for phoneme in ARPABET)
# Where a set lacks a sign, the next best that it may have.
_STAND_INS = {
    "\u2026": ("...",),
    "\u2014": ("-",), "\u2013": ("\u2014", "-"), "\u2015": ("\u2014", "-"), "\u2212": ("-",), "\u2012": ("-",),
    "\u2010": ("-",), "\u2011": ("-",),
    **dict.fromkeys("\u00ab\u00bb\u201c\u201d\u201e\u201f\u2039\u203a\u300c\u300d\u300e\u300f", ('"',)),
    **dict.fromkeys("\u2018\u2019\u201a\u201b\u02bc\u0060\u00b4", ("'",)),
    "\u3002": (".",), "\u3001": (",",), "\uff0c": (",",), "\u060c": (",",), "\u061f": ("?",), "\u061b": (";",),
    "\uff1f": ("?",), "\uff01": ("!",), "\u0964": (".",), "\u037e": (";",), "\u0387": (";",), "\uff1a": (":",),
    "\uff1b": (";",), "\u30fb": (" ",),
    "\u0261": ("g",),
}  # fmt: skip
# Signs that nobody speaks: left out, and counted, where the set has neither them nor a stand-in.
SILENT_SIGNS = frozenset("\"'[]()\u00ab\u00bb\u201c\u201d\u201e\u201f\u2039\u203a\u00a1\u00bf\u2022\u00b7")
# Punctuation by its category, but spoken.
_SPOKEN_SIGNS = frozenset("&%@#\u00a7\u2030")


@dataclass(frozen=True)
class SymbolTable:
    """Symbols in the order of their ids; id 0 is padding. `name`: where they come from, for messages."""

    symbols: tuple[str, ...]
    name: str = "custom"

    def __post_init__(self) -> None:
        assert self.symbols and self.symbols[0] == PAD, "padding is symbol 0"
        assert len(set(self.symbols)) == len(self.symbols), "no symbol twice"

    @cached_property
    def id_of(self) -> dict[str, int]:
        """Ids of what a text may hold: padding is not among them."""
        return {symbol: i for i, symbol in enumerate(self.symbols) if i}

    def __len__(self) -> int:
        return len(self.symbols)

    def __contains__(self, symbol: object) -> bool:
        return symbol in self.id_of

    @cached_property
    def needs_sound(self) -> tuple[bool, ...]:
        """For each id whether it is spoken: see `symbols.needs_sound`."""
        return tuple(needs_sound(symbol) for symbol in self.symbols)

    @property
    def has_arpabet(self) -> bool:
        return PHONEME_PREFIX + "AA1" in self.id_of

    def fitted(self, symbol: str) -> tuple[str, ...] | None:
        """The symbols of this set for `symbol`: itself, its parts, or a stand-in; None where there is none."""
        if symbol in self.id_of:
            return (symbol,)
        for other in (unicodedata.normalize("NFD", symbol), *_STAND_INS.get(symbol, ())):
            if other != symbol and all(part in self.id_of for part in other):
                return tuple(other)
        return None

    def shown(self, ids: Iterable[int]) -> list[str]:
        """Each symbol as a person reads it, ARPAbet in braces."""
        return [self.text_of([i]) for i in ids]

    def text_of(self, ids: Iterable[int]) -> str:
        """The text that these ids spell, ARPAbet in braces. Padding shows as `_`."""
        spelled = []
        for i in ids:
            assert 0 <= i < len(self.symbols), f"symbol id {i} is not in 0..{len(self.symbols) - 1}"
            spelled.append(self.symbols[i])
        return joined(spelled)


def is_silent(symbol: str, *, strict: bool) -> bool:
    """Whether a sign may be left out. strict: only quotes and brackets, as in NVIDIA's transcripts."""
    if symbol in SILENT_SIGNS:
        return True
    return not strict and unicodedata.category(symbol[0]).startswith("P") and symbol not in _SPOKEN_SIGNS


def joined(symbols: Iterable[str]) -> str:
    """Symbols as one text, ARPAbet phonemes in braces."""
    runs = [(is_phoneme, list(run)) for is_phoneme, run in groupby(symbols, key=lambda symbol: symbol in _PHONEMES)]
    return "".join(_in_braces(run) if is_phoneme else "".join(run) for is_phoneme, run in runs)


def _in_braces(phonemes: Sequence[str]) -> str:
    return "{" + " ".join(phoneme.removeprefix(PHONEME_PREFIX) for phoneme in phonemes) + "}"


@cache
def named_table(name: str) -> SymbolTable:
    """One of the sets that do not depend on a corpus: nvidia, ipa, russian."""
    if name == "nvidia":
        return SymbolTable(nvidia_symbols, name)
    return SymbolTable(read_symbols(DATA / f"symbols_{name}.txt"), name)


def table_from(symbol_set: str) -> SymbolTable:
    """The set of that name, or of the file at that path. UserError where neither is, or the file has bad lines."""
    if symbol_set in NAMED_SETS:
        assert symbol_set != "corpus", "the symbols of a corpus come from its texts: corpus_table"
        return named_table(symbol_set)
    path = Path(symbol_set)
    if not path.is_file():
        raise UserError(f"symbol_set={symbol_set}: neither a set ({', '.join(NAMED_SETS)}) nor a file; correct it")
    return SymbolTable(read_symbols(path), symbol_set)


def corpus_table(symbols: Iterable[str]) -> SymbolTable:
    """The symbols that occur, in the order of their code points; SymbolTable of padding alone if none does."""
    found = Counter(symbols)
    return SymbolTable((PAD, *sorted(symbol for symbol in found if symbol != PAD)), "corpus")


def read_symbols(path: Path) -> tuple[str, ...]:
    """The symbols of a file, padding first. UserError with every bad line."""
    try:
        lines = read_given_text(path).split("\n")
    except NotText as error:
        raise UserError(f"{path} {error}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot read the symbols; {error.strerror or error}; correct symbol_set") from error
    symbols: dict[str, int] = {PAD: 1}
    problems = []
    for number, line in enumerate(lines, start=1):
        if not line.rstrip("\r"):
            continue
        symbol = _symbol_of(line.rstrip("\r"))
        problem = _problem(symbol, line, first=symbols.get(symbol), number=number)
        if problem:
            problems.append(f"{path}:{number}: {problem}")
        symbols.setdefault(symbol, number)
    if problems:
        raise UserError(format_problems(problems, headline=f"{len(problems)} bad lines in the symbols:"))
    return tuple(symbols)


def _symbol_of(line: str) -> str:
    return " " if line == SPACE_LINE or not line.strip(" ") else line.strip()


def _problem(symbol: str, line: str, *, first: int | None, number: int) -> str | None:
    if len(symbol) != 1 and symbol not in _PHONEMES:
        return f"{line!r} is {len(symbol)} characters; write one symbol a line, {SPACE_LINE} for a space"
    if first is not None and not (symbol == PAD and number == 1):
        where = "is padding, and always symbol 0" if symbol == PAD else f"stands in line {first} already"
        return f"{symbol!r} {where}; delete one"
    return None
