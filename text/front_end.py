"""The front end of a voice: from a text as people write it to the ids of the voice's symbols.

    front_end = FrontEnd.create(language="ru")
    front_end.symbol_ids("...")            ids, or a DataError with all that is wrong
    front_end.read(texts)                  for each text: ids, every stage, notes on guesses, problems

It is made of plain data, its list of symbols and the pronunciations of one's own included, and is kept in the voice
with `to_dict`; `from_dict` makes the same front end from it on another machine.
"""

import dataclasses
import difflib
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from common.errors import DataError, UserError, format_problems
from text.arpabet import ipa_of
from text.child import version_of
from text.cleaners import named_cleaners
from text.inspection import Inspected, described_counts, inspect, long_words
from text.language_settings import TRANSLITERATING, default_symbol_set, own_or_named
from text.languages import Language, language_of
from text.notes import Note, TextProblem
from text.phoneme_readers import EnglishPhonemes, EspeakPhonemes
from text.pronunciations import Pronunciation, Pronunciations, parsed, read_pronunciations
from text.readers import Letters, LettersByCleaners, Reader, Spelling
from text.russian_reader import Russian
from text.symbol_sets import SymbolTable, corpus_table, is_silent, named_table, table_from
from text.symbols import ARPABET, PHONEME_PREFIX

TextInput = Literal["characters", "phonemes"]
TEXT_INPUTS: tuple[TextInput, ...] = ("characters", "phonemes")
FORMAT = 2  # of `to_dict`, and of what is cached: raise it whenever a reading changes
EXCERPT_LENGTH = 60  # enough of a text to find it by
_ARPABET, _LIKE_ARPABET = frozenset(ARPABET), re.compile(r"[A-Z]{1,2}[0-9]?")
_BRACES = re.compile(r"\{([^{}]*[^{}\s][^{}]*)\}")  # braces around nothing, or unbalanced, are plain characters


@dataclass(frozen=True)
class Reading:
    """What became of one text. ids [T_text] of what could be spelled; they are whole only where `problems` is empty."""

    text: str
    ids: tuple[int, ...]
    stages: tuple[tuple[str, str], ...]
    notes: tuple[Note, ...] = ()
    problems: tuple[TextProblem, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a cache; `from_dict` makes the same reading of it."""
        return {
            "text": self.text,
            "ids": list(self.ids),
            "stages": [list(stage) for stage in self.stages],
            "notes": [note.to_list() for note in self.notes],
            "problems": [problem.to_list() for problem in self.problems],
        }

    @classmethod
    def from_dict(cls, kept: Mapping[str, Any]) -> "Reading":
        return cls(
            kept["text"],
            tuple(kept["ids"]),
            tuple((name, shown) for name, shown in kept["stages"]),
            tuple(Note(*note) for note in kept["notes"]),
            tuple(TextProblem(*problem) for problem in kept["problems"]),
        )


@dataclass(frozen=True)
class FrontEnd:
    """Made by `create` or `from_dict`. cleaners: None for the language's own normaliser."""

    language: Language
    text_input: TextInput
    cleaners: tuple[str, ...] | None
    table: SymbolTable
    pronunciations: Pronunciations = field(default_factory=Pronunciations)

    @classmethod
    def create(
        cls,
        *,
        language: str = "en",
        text_input: TextInput = "characters",
        cleaners: Sequence[str] | None = None,
        symbol_set: str | None = None,
        pronunciations: Path | None = None,
        corpus: Iterable[str] | None = None,
    ) -> "FrontEnd":
        """From settings as users write them. UserError for every one that cannot be.

        symbol_set: nvidia, ipa, russian, corpus or a file; None for the language's own. corpus: the texts whose symbols
        are taken where the set is `corpus`.
        """
        chosen = language_of(language)
        if text_input not in TEXT_INPUTS:
            raise UserError(f"text_input={text_input}: neither {' nor '.join(TEXT_INPUTS)}; correct it")
        if cleaners is not None:
            named_cleaners(cleaners)
        named = None if cleaners is None else tuple(cleaners)
        wanted = symbol_set or default_symbol_set(chosen, text_input, named)
        entries = read_pronunciations(pronunciations) if pronunciations else Pronunciations()
        found = wanted == "corpus"
        table = corpus_table(()) if found else table_from(wanted)
        front_end = cls(chosen, text_input, named, table, entries)
        if found:
            if corpus is None:
                raise UserError(
                    f"language={chosen.code} with text_input={text_input} takes its symbols from a corpus, and there "
                    "is none; name a set or a file with symbol_set, or set text_input=phonemes"
                )
            front_end = front_end.with_symbols_of(list(corpus))
        front_end.check()
        return front_end

    def with_symbols_of(self, texts: Sequence[str]) -> "FrontEnd":
        """The same with the symbols that these texts have after reading, in the order of their code points.

        Texts that cannot be read, as those in another script, add none.
        """
        pieces = [piece for text in texts for piece in self._prepared(text).pieces]
        spelled = self._reader.read([piece for piece in pieces if isinstance(piece, str)])
        braced = [_braced(piece.content, arpabet=False) for piece in pieces if isinstance(piece, _Phonemes)]
        found = [*(spelling.symbols for spelling in spelled), *braced]
        table = corpus_table(symbol for symbols in found for symbol in symbols if symbol not in "{}")
        return dataclasses.replace(self, table=table)

    def check(self) -> None:
        """UserError if the symbols do not fit the way of reading, or an own pronunciation has others than those."""
        needed, kind = self._needed_symbol()
        if needed and needed not in self.table and not (needed == "\u02c8" and self._speaks_arpabet):
            raise UserError(
                f"symbol_set={self.table.name} has no {kind}, which language={self.language.code} with "
                f"text_input={self.text_input} is read in; set symbol_set="
                f"{default_symbol_set(self.language, self.text_input, self.cleaners)} or leave it out"
            )
        problems = [problem for entry in self.pronunciations.entries if (problem := self._entry_problem(entry))]
        if problems:
            raise UserError(format_problems(problems, headline=f"{len(problems)} pronunciations have no symbols:"))

    def _needed_symbol(self) -> tuple[str, str]:
        if self.table.name == "corpus" or (self.cleaners is not None and self.text_input == "characters"):
            return "", ""
        if self.text_input == "phonemes":
            return "\u02c8", "IPA" if not self.language.is_english else "phonemes"
        if self.language.code == "ru":
            return "\u043e", "Russian letters"
        return ("e", "Latin letters") if self.language.is_english else ("", "")

    @property
    def _speaks_arpabet(self) -> bool:
        return self.language.code == "en" and self.table.has_arpabet

    def _entry_problem(self, entry: Pronunciation) -> str | None:
        if not entry.is_phonemes:
            return None
        unknown = [s for s in _braced(entry.reading, arpabet=self.table.has_arpabet) if self.table.fitted(s) is None]
        if not unknown:
            return None
        shown = ", ".join(dict.fromkeys(symbol.removeprefix(PHONEME_PREFIX) for symbol in unknown))
        return f"{entry.where or entry.word}: symbol_set={self.table.name} has no {shown}; correct the reading"

    @cached_property
    def _reader(self) -> Reader:
        if self.language.code == "ru":
            phonemes = self.text_input == "phonemes"
            if not phonemes and self.cleaners is not None and not TRANSLITERATING.isdisjoint(self.cleaners):
                return LettersByCleaners(self.cleaners, named=True)
            return Russian(phonemes=phonemes, cleaners=self.cleaners, spellings=self.pronunciations.spellings())
        if self.text_input == "phonemes":
            if self.language.code == "en":
                return EnglishPhonemes(arpabet=self.table.has_arpabet, cleaners=self.cleaners)
            return EspeakPhonemes(self.language, cleaners=self.cleaners)
        if self.cleaners is not None:
            return LettersByCleaners(self.cleaners, named=True)
        if self.language.is_english:
            return LettersByCleaners(("english_cleaners",), named=False)
        return Letters(self.language)

    @property
    def is_slow(self) -> bool:
        """Whether reading takes dictionaries or other processes, so that it is worth keeping what was read."""
        return not isinstance(self._reader, LettersByCleaners)

    def close(self) -> None:
        """Ends the processes that wait for more texts, shared ones too; the next reading starts them anew."""
        if "_reader" in vars(self):
            self._reader.close()

    def symbol_ids(self, text: str) -> list[int]:
        """Symbol ids [T_text]. DataError with all problems of the text."""
        reading = self.read([text])[0]
        if reading.problems:
            problems = [problem.detail for problem in reading.problems]
            raise DataError(format_problems(problems, headline=f"{excerpt(text)!r} cannot be read:"))
        return list(reading.ids)

    def text_of(self, ids: Iterable[int]) -> str:
        """The symbols of these ids as text, ARPAbet in braces."""
        return self.table.text_of(ids)

    def read(self, texts: Sequence[str]) -> list[Reading]:
        """Every text with its ids, stages, notes and problems; a problem of one does not touch the others."""
        prepared = [self._prepared(text) for text in texts]
        stretches = [piece for each in prepared for piece in each.pieces if isinstance(piece, str)]
        spellings = iter(self._reader.read(stretches))
        return [self._reading(each, spellings) for each in prepared]

    def _prepared(self, text: str) -> "_Prepared":
        """Braces and words with phonemes of their own cut out; the rest looked at, unless named cleaners rule."""
        inspected = inspect(text, self.language) if self.cleaners is None else Inspected(text, (), ())
        problems = [*inspected.problems, *([] if self._reader.strict else long_words(inspected.text, self.language))]
        if problems:
            return _Prepared(text, (), inspected.notes, tuple(problems))
        return _Prepared(text, tuple(self._pieces(inspected.text)), inspected.notes, ())

    def _pieces(self, text: str) -> Iterable["str | _Phonemes"]:
        for i, part in enumerate(_BRACES.split(text)):
            if i % 2:
                yield _Phonemes(part)
            else:
                for piece in self.pronunciations.applied(part):
                    yield piece if isinstance(piece, str) else _Phonemes(piece.reading)

    def _reading(self, prepared: "_Prepared", spellings: Iterator[Spelling]) -> Reading:
        notes, problems = list(prepared.notes), list(prepared.problems)
        joined, unread = _Joined(), Counter[str]()
        for i, piece in enumerate(prepared.pieces):
            if isinstance(piece, _Phonemes):
                braced = _braced(piece.content, arpabet=self.table.has_arpabet)
                problems += self._phoneme_problems(braced)
                joined.add_phonemes(piece.content, [symbol for symbol in braced if self.table.fitted(symbol)])
            else:
                spelling = next(spellings)
                notes += spelling.notes
                unread.update(spelling.unread)
                joined.add(spelling, piece, first=i == 0, last=i == len(prepared.pieces) - 1)
        ids, dropped, unknown = self._fitted(joined.symbols)
        notes += [Note("dropped", symbol, "", count) for symbol, count in dropped.items()]
        if unknown := unknown | unread:
            problems.append(_unknown_characters(unknown, self.table))
        if not problems and not self._has_sound(ids):
            problems.append(TextProblem("empty text", f"nothing to say in {excerpt(prepared.text)!r}; write the words"))
        stages = (("text", prepared.text), *joined.stages.items())
        return Reading(prepared.text, tuple(ids), stages, tuple(notes), tuple(problems))

    def _fitted(self, symbols: Sequence[str]) -> tuple[list[int], Counter[str], Counter[str]]:
        ids: list[int] = []
        dropped: Counter[str] = Counter()
        unknown: Counter[str] = Counter()
        id_of = self.table.id_of
        for symbol in symbols:
            if symbol in id_of:
                ids.append(id_of[symbol])
                continue
            fitted = self.table.fitted(symbol)
            if fitted is not None:
                ids += [self.table.id_of[part] for part in fitted]
            elif is_silent(symbol, strict=self._reader.strict):
                dropped[symbol] += 1
            else:
                unknown[symbol] += 1
        return ids, dropped, unknown

    def _has_sound(self, ids: Sequence[int]) -> bool:
        return any(self.table.symbols[i][-1].isalnum() for i in ids)

    def _phoneme_problems(self, braced: Sequence[str]) -> list[TextProblem]:
        unknown = Counter(symbol for symbol in braced if self.table.fitted(symbol) is None)
        if not unknown:
            return []
        shown = ", ".join(f"{symbol.removeprefix(PHONEME_PREFIX)} {count} x" for symbol, count in unknown.items())
        takes_arpabet = self.table.has_arpabet or self.language.code == "en"
        nearest = self._nearest_phonemes(unknown) if takes_arpabet else []
        hint = f"; nearest: {', '.join(nearest)}" if nearest else ""
        kind = "is no ARPAbet phoneme" if self.table.has_arpabet else f"is not among the symbols ({self.table.name})"
        return [TextProblem("unknown phonemes", f"in braces: {shown} {kind}{hint}; correct it", dict(unknown))]

    @staticmethod
    def _nearest_phonemes(unknown: Iterable[str]) -> list[str]:
        matches = (difflib.get_close_matches(each.removeprefix(PHONEME_PREFIX).upper(), ARPABET, n=3, cutoff=0.5)
                   for each in unknown)  # fmt: skip
        return list(dict.fromkeys(phoneme for found in matches for phoneme in found))

    def to_dict(self) -> dict[str, Any]:
        """Plain data to keep in a voice: all that `from_dict` needs, and the versions that it was made with."""
        return {
            "format": FORMAT,
            "language": self.language.code,
            "text_input": self.text_input,
            "cleaners": None if self.cleaners is None else list(self.cleaners),
            "symbol_set": self.table.name,
            "symbols": list(self.table.symbols),
            "pronunciations": self.pronunciations.as_lists(),
            "packages": {name: version_of(name) for name in dict.fromkeys(self._reader.packages)},
        }

    @classmethod
    def from_dict(cls, kept: Mapping[str, Any]) -> "FrontEnd":
        """UserError if this version cannot read what is kept."""
        if kept["format"] > FORMAT:
            raise UserError(f"the voice's front end has format {kept['format']}, this version reads up to {FORMAT}")
        entries = tuple(parsed(word, reading) for word, reading in kept["pronunciations"])
        cleaners = kept["cleaners"]
        return cls(
            language_of(kept["language"]),
            kept["text_input"],
            None if cleaners is None else tuple(cleaners),
            SymbolTable(tuple(kept["symbols"]), kept["symbol_set"]),
            Pronunciations(entries),
        )

    def changed_packages(self, kept: Mapping[str, Any]) -> list[str]:
        """Packages whose version here is not the one that `to_dict` noted: the same text may be read otherwise."""
        made_with: Mapping[str, str | None] = kept["packages"]
        here = {name: version_of(name) for name in made_with}
        return [f"{name} {made_with[name]}, here {here[name]}" for name in made_with if made_with[name] != here[name]]

    def key(self) -> str:
        """64 hex digits of everything that a reading depends on, versions of packages included: for caches."""
        content = json.dumps(self.to_dict(), sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(content.encode("ascii")).hexdigest()


def front_end_of_voice(kept: Mapping[str, Any] | None, *, symbols: Sequence[str], cleaners: Sequence[str]) -> FrontEnd:
    """Of a checkpoint: what it keeps. Checkpoints of version 0.1.0 keep symbols and the names of cleaners only."""
    if kept is not None:
        return FrontEnd.from_dict(kept)
    name = "nvidia" if tuple(symbols) == named_table("nvidia").symbols else "custom"
    return FrontEnd(language_of("en"), "characters", own_or_named("en", cleaners), SymbolTable(tuple(symbols), name))


@dataclass(frozen=True)
class _Phonemes:
    content: str


@dataclass
class _Joined:
    """The stretches of one text put together again, with the spaces that a normaliser took from their ends."""

    symbols: list[str] = field(default_factory=list)
    stages: dict[str, str] = field(default_factory=dict)

    def add(self, spelling: Spelling, piece: str, *, first: bool, last: bool) -> None:
        if not first and piece[:1].isspace() and spelling.symbols[:1] != (" ",):
            self._add_space()
        self.symbols += spelling.symbols
        for name, shown in spelling.stages:
            self.stages[name] = self.stages.get(name, "") + shown
        if not last and piece.strip() and piece[-1:].isspace() and spelling.symbols[-1:] != (" ",):
            self._add_space()

    def add_phonemes(self, content: str, symbols: Sequence[str]) -> None:
        self.symbols += symbols
        self.stages = {name: f"{shown}{{{content}}}" for name, shown in self.stages.items()}

    def _add_space(self) -> None:
        self.symbols.append(" ")
        self.stages = {name: shown + " " for name, shown in self.stages.items()}


@dataclass(frozen=True)
class _Prepared:
    text: str
    pieces: tuple[str | _Phonemes, ...]
    notes: tuple[Note, ...]
    problems: tuple[TextProblem, ...]


def excerpt(text: str) -> str:
    return text if len(text) <= EXCERPT_LENGTH else text[:EXCERPT_LENGTH] + "..."


def _braced(content: str, *, arpabet: bool) -> list[str]:
    """The symbols of what stands in braces: ARPAbet where the voice has it, else its symbols as they are."""
    phonemes = content.split()
    if arpabet:
        return [PHONEME_PREFIX + phoneme for phoneme in phonemes]
    if all(map(_LIKE_ARPABET.fullmatch, phonemes)) and any(phoneme[-1].isdigit() for phoneme in phonemes):
        if _ARPABET.issuperset(phonemes):
            return list(ipa_of(phonemes))  # for a voice on IPA: nobody means these letters as they are
        return [phoneme for phoneme in phonemes if phoneme not in _ARPABET]  # mistyped: no symbol of any set
    return list(content.strip())


def _unknown_characters(counts: Counter[str], table: SymbolTable) -> TextProblem:
    return TextProblem(
        "unknown characters",
        f"no symbol ({table.name}) for {described_counts(counts)}; spell it out or remove it",
        dict(counts),
    )
