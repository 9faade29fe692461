"""The texts of filelists read by the voice's front end: symbol ids, what was guessed, and which lines can't be read.

Every text is read once for all lists. Front ends that take long (phonemes, stress) keep what they read in
`<cache>/readings/<key>.json`, under a key of everything that a reading depends on.
"""

import json
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from common.cache_dir import cache_directory, cache_file
from common.log import LOG
from corpus.filelists import Filelist, Utterance
from corpus.findings import Finding, error
from hparams import TextParams
from text.front_end import FrontEnd, Reading, excerpt
from text.language_settings import own_or_named
from text.ledger import Ledger
from text.notes import MEANINGS, NoteKind, TextProblem

# What a person should look at before training; numbers written out and the like are as they should be.
WARNED_KINDS: tuple[NoteKind, ...] = ("transliterated", "look-alike", "dropped", "language switch", "no stress")
SHOWN_READINGS = 6


def front_end_of(hp: TextParams, texts: Sequence[str]) -> FrontEnd:
    """As the hyperparameters say. texts: those whose symbols are taken with `symbol_set=corpus`."""
    return FrontEnd.create(
        language=hp.language,
        text_input=hp.text_input,
        cleaners=own_or_named(hp.language, hp.text_cleaners),
        symbol_set=hp.symbol_set or None,
        pronunciations=Path(hp.pronunciations) if hp.pronunciations else None,
        corpus=texts,
    )


def with_readings(filelists: Sequence[Filelist], front_end: FrontEnd) -> tuple[tuple[Filelist, ...], Ledger]:
    """The lists with the symbol ids of every utterance; those that can't be read are among their problems."""
    readings = read_once([u.text for filelist in filelists for u in filelist.utterances], front_end)
    ledger = Ledger()
    return tuple(_with_readings(filelist, readings, ledger) for filelist in filelists), ledger


def _with_readings(filelist: Filelist, readings: dict[str, Reading], ledger: Ledger) -> Filelist:
    read: list[Utterance] = []
    problems = list(filelist.problems)
    for utterance in filelist.utterances:
        reading = readings[utterance.text]
        ledger.add(reading.notes, place=utterance.where)
        if reading.problems:
            problems += [_problem(utterance, each) for each in reading.problems]
        else:
            read.append(replace(utterance, symbol_ids=reading.ids))
    problems.sort(key=lambda problem: problem.line)
    return replace(filelist, utterances=tuple(read), problems=tuple(problems))


def _problem(utterance: Utterance, found: TextProblem) -> Finding:
    detail, _, advice = found.detail.rpartition("; ")
    return error(found.kind, f'{detail} in "{excerpt(utterance.text)}"', advice).at(utterance.source, utterance.line)


def read_once(texts: Sequence[str], front_end: FrontEnd) -> dict[str, Reading]:
    """Each different text and its reading, from the cache where it was read before."""
    path = cache_directory() / "readings" / f"{front_end.key()}.json"
    known = _stored(path) if front_end.is_slow else {}
    new = [text for text in dict.fromkeys(texts) if text not in known]
    known |= {reading.text: reading for reading in front_end.read(new)}
    if new and front_end.is_slow:
        with cache_file(path) as file:
            file.write(json.dumps([r.to_dict() for r in known.values()], ensure_ascii=False).encode("utf-8"))
    return known


def _stored(path: Path) -> dict[str, Reading]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        readings = [Reading.from_dict(row) for row in rows]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, LookupError) as error:
        LOG.warning("%s can't be used (%s): every text is read again", path, error)
        return {}
    return {reading.text: reading for reading in readings}


def log_what_was_guessed(ledger: Ledger, filelist: Path, front_end: FrontEnd) -> None:
    """One line of counts, and one for each kind that may damage a voice, with examples and where they stand."""
    summary = ledger.summary()
    if summary:
        LOG.info(
            "texts: %s; see them all: python -m text ledger %s --all --language %s --text-input %s",
            summary, shlex.quote(str(filelist)), front_end.language.code, front_end.text_input,
        )  # fmt: skip
    for kind in WARNED_KINDS:
        entries = ledger.entries(kind)
        if not entries:
            continue
        shown = "; ".join(_shown(entry.what, entry.reading, entry.count) for entry in entries[:SHOWN_READINGS])
        more = f"; {len(entries) - SHOWN_READINGS} more" if len(entries) > SHOWN_READINGS else ""
        LOG.warning(
            "texts: %d x %s (%s): %s%s (first: %s)",
            ledger.counts()[kind], kind, MEANINGS[kind], shown, more, entries[0].places[0],
        )  # fmt: skip


def _shown(what: str, reading: str, count: int) -> str:
    return f"{what!r} read as {reading!r} {count} x" if reading else f"{what!r} {count} x"
