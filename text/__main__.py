"""See what a front end makes of a text, stage by stage, and what it guessed in a corpus.

python -m text "In 1984 he read the book." --text-input phonemes
python -m text ledger data/dataset/train.csv --language ru -o pronunciations.tsv
python -m text languages
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from common.cli import Parser, run_command
from common.encodings import NotText
from common.errors import DataError, UserError
from common.files import read_given_text
from text.front_end import TEXT_INPUTS, FrontEnd, Reading
from text.languages import languages
from text.ledger import Ledger
from text.notes import MEANINGS, NoteKind

SHOWN_ENTRIES = 20
SETTINGS = ("language", "text_input", "text_cleaners", "symbol_set", "pronunciations")


def main(arguments: Sequence[str]) -> int:
    command, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if command == "ledger":
        return run_command(lambda: show_ledger(rest))
    if command == "languages":
        return run_command(show_languages)
    return run_command(lambda: show_texts(arguments))


def show_languages() -> int:
    print("\n".join(f"{language.code:18}{language.name}" for language in languages().values()))
    return 0


def parser() -> Parser:
    p = Parser(
        prog="python -m text",
        description="Shows every stage from a text to symbol ids.",
        epilog="also: python -m text ledger FILELIST, python -m text languages",
    )
    p.add_argument("texts", nargs="+", metavar="TEXT")
    _add_settings(p)
    return p


def ledger_parser() -> Parser:
    p = Parser(prog="python -m text ledger", description="Lists what the front end guesses in the texts of a filelist.")
    p.add_argument("filelist", type=Path)
    p.add_argument("-o", "--output", type=Path, help="write a file of pronunciations to correct")
    p.add_argument("--all", action="store_true", help=f"all entries, not the {SHOWN_ENTRIES} commonest of a kind")
    _add_settings(p)
    return p


def show_texts(arguments: Sequence[str]) -> int:
    options = parser().parse_args(arguments)
    front_end = _front_end(options, options.texts)
    readings = front_end.read(options.texts)
    print("\n\n".join(shown(reading, front_end) for reading in readings))
    return DataError.exit_code if any(reading.problems for reading in readings) else 0


def show_ledger(arguments: Sequence[str]) -> int:
    options = ledger_parser().parse_args(arguments)
    lines = _texts_of(options.filelist)
    texts = [text for _, text in lines]
    ledger, unread = Ledger(), []
    for (number, _), reading in zip(lines, _front_end(options, texts).read(texts), strict=True):
        place = f"{options.filelist}:{number}"
        ledger.add(reading.notes, place=place)
        unread += [f"{place}: {problem.detail}" for problem in reading.problems]
    print(ledger_text(ledger, shown=None if options.all else SHOWN_ENTRIES, n_texts=len(texts)))
    if options.output:
        _write_new(options.output, ledger.pronunciation_lines())
        print(
            f"\n{options.output}: correct it, then pass it here with --pronunciations, and to train.py with --hparams "
            f"pronunciations={options.output}"
        )
    if unread:
        print(f"\n{len(unread)} problems; these lines cannot be read:", file=sys.stderr)
        print("\n".join(unread), file=sys.stderr)
    return DataError.exit_code if unread else 0


def _add_settings(p: Parser) -> None:
    add = p.add_argument
    add("--language", help="a code such as en, ru, de; `python -m text languages` lists them (default en)")
    add("--text-input", choices=TEXT_INPUTS, help="what the voice reads (default characters)")
    add("--text-cleaners", help="names separated by commas, instead of the language's normalizer")
    add("--symbol-set", help="nvidia, ipa, russian, corpus, or a file with one symbol a line")
    add("--pronunciations", help="file of word<TAB>reading that overrides every dictionary")
    add("--hparams", help="the same settings as name=value,name=value, as in train.py")


def _front_end(options: argparse.Namespace, texts: Sequence[str]) -> FrontEnd:
    """From the switches and --hparams, as training would make it."""
    from corpus.readings import front_end_of  # here, because --help does not need it
    from hparams import resolve_hparams

    switches = {name: getattr(options, name) for name in SETTINGS if getattr(options, name)}
    if "text_cleaners" in switches:
        switches["text_cleaners"] = tuple(name.strip() for name in switches["text_cleaners"].split(","))
    return front_end_of(resolve_hparams(overrides=options.hparams, trial=switches).hparams, texts)


def shown(reading: Reading, front_end: FrontEnd) -> str:
    """The stages of one text, its ids, notes and problems as lines."""
    lines = [f"{name:12}{text}" for name, text in reading.stages]
    if not reading.problems:
        lines.append(f"{'symbols':12}{front_end.text_of(reading.ids)}")
        lines.append(f"{'ids':12}{' '.join(map(str, reading.ids))}")
    lines += [f"{note.kind:16}{note.what} -> {note.reading or 'nothing'}{_times(note.count)}" for note in reading.notes]
    lines += [f"{'cannot be read':16}{problem.detail}" for problem in reading.problems]
    return "\n".join(lines)


def ledger_text(ledger: Ledger, *, shown: int | None, n_texts: int) -> str:
    lines = [f"{n_texts} texts: {ledger.summary() or 'nothing was guessed'}"]
    for kind in ledger.counts():
        lines += ["", *_kind_lines(ledger, kind, shown)]
    return "\n".join(lines)


def _kind_lines(ledger: Ledger, kind: NoteKind, shown: int | None) -> list[str]:
    entries = ledger.entries(kind)
    lines = [f"{kind} ({MEANINGS[kind]}): {len(entries)}"]
    for entry in entries[:shown]:
        lines.append(f"  {entry.count:5} x  {entry.what} -> {entry.reading or 'nothing'}   {', '.join(entry.places)}")
    if len(entries) > len(entries[:shown]):
        lines.append(f"  ... and {len(entries) - len(entries[:shown])} more (--all)")
    return lines


def _times(count: int) -> str:
    return f" ({count} x)" if count > 1 else ""


def _texts_of(filelist: Path) -> list[tuple[int, str]]:
    """Line number and text to read: the second column, or the third where the first is no file name (LJSpeech)."""
    try:
        content = read_given_text(filelist)
    except NotText as error:
        raise DataError(f"{filelist} {error}") from error
    except OSError as error:
        raise DataError(f"{filelist}: cannot read the filelist; {error.strerror or error}; correct the path") from error
    texts = []
    for number, line in enumerate(content.split("\n"), start=1):
        columns = [column.strip() for column in line.split("|")]
        if line.strip() and len(columns) > 1:
            is_path = bool(Path(columns[0]).suffix)
            texts.append((number, columns[1] if is_path or len(columns) == 2 else columns[2]))
    if not texts:
        raise DataError(f"{filelist}: no line of the form wav|text; correct the path")
    return texts


def _write_new(path: Path, lines: Sequence[str]) -> None:
    if path.exists():
        raise UserError(f"{path} exists, and may hold corrections; give another name")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
