"""Every hyperparameter with its value, where the value came from, and what is allowed: `--show-params` and documents.

`python params_view.py --write` makes docs/hyperparameters.md and .ru.md anew from the declarations; `--check` ends with
exit code 1 if they say something else.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from common.translations import Language, messages
from hparams import Resolved, field_info, field_names, preset_names, read_help, resolve_hparams
from tools import format_value

Format = Literal["text", "md", "json"]
TEXT_COLUMNS = ("name", "value", "default", "origin", "unit", "range", "help")
ROOT = Path(__file__).parent
DOCUMENTS: dict[Language, Path] = {
    "en": ROOT / "docs" / "hyperparameters.md",
    "ru": ROOT / "docs" / "hyperparameters.ru.md",
}
TABLE_COLUMNS = ("name", "type", "value", "default", "origin", "unit", "range", "aliases", "help")


def show_params(resolved: Resolved, fmt: Format, *, language: Language = "en") -> str:
    """The table as aligned text, as Markdown, or as one JSON object

    `{name: {value, default, type, unit, range, aliases, origin, help}}`.
    """
    if fmt == "json":
        return json.dumps(describe_params(resolved, language=language), indent=2, ensure_ascii=False)
    columns = TEXT_COLUMNS if fmt == "text" else TABLE_COLUMNS
    rows = _rows(describe_params(resolved, language=language), columns)
    return _aligned(rows) if fmt == "text" else _markdown(rows)


def describe_params(resolved: Resolved, *, language: Language = "en") -> dict[str, dict[str, object]]:
    """Plain types only (lists for tuples), in declaration order."""
    help_texts, values = read_help(), resolved.hparams.canonical()
    described: dict[str, dict[str, object]] = {}
    for name in field_names():
        spec = field_info(name)
        default = list(spec.default) if isinstance(spec.default, tuple) else spec.default
        described[name] = {
            "value": values[name],
            "default": default,
            "type": spec.type,
            "unit": spec.unit,
            "range": spec.range,
            "aliases": list(spec.aliases),
            "origin": resolved.origins[name],
            "help": help_texts[name][language],
        }
    return described


def _rows(described: dict[str, dict[str, object]], columns: tuple[str, ...]) -> list[list[str]]:
    rows = [list(columns)]
    for name, facts in described.items():
        cells = {"name": name} | {key: _cell(key, value) for key, value in facts.items()}
        rows.append([cells[column] for column in columns])
    return rows


def _cell(column: str, value: object) -> str:
    if column in ("value", "default"):
        return format_value(value)
    return ", ".join(value) if isinstance(value, list) else str(value)


def _aligned(rows: list[list[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(lines)


def _markdown(rows: list[list[str]]) -> str:
    escaped = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in [escaped[0], ["---"] * len(rows[0]), *escaped[1:]])


# ---- documents


def document(language: Language) -> str:
    """The reference of all hyperparameters and presets as Markdown."""
    texts = messages("documents", language)
    parts = [
        texts["title"],
        texts["intro"].format(n=len(field_names())),
        texts["affects"],
        _markdown([texts["columns"].split("|"), *_declarations(language, yes=texts["mutable"])]),
        texts["presets"],
        _markdown([texts["preset_columns"].split("|"), *_presets()]),
    ]
    return "\n\n".join(parts) + "\n"


def _declarations(language: Language, *, yes: str) -> list[list[str]]:
    rows = []
    for name, facts in describe_params(resolve_hparams(), language=language).items():
        spec = field_info(name)
        cells = [_cell(column, facts[column]) for column in ("type", "default", "unit", "range", "aliases")]
        rows.append([f"`{name}`", *cells, spec.affects, yes if spec.mutable else "", str(facts["help"])])
    return rows


def _presets() -> list[list[str]]:
    rows = []
    for preset in preset_names():
        resolved = resolve_hparams(preset=preset)
        values = resolved.hparams.canonical()
        changed = [f"{n}={format_value(values[n])}" for n, origin in resolved.origins.items() if origin != "default"]
        rows.append([f"`{preset}`", " ".join(f"`{text}`" for text in changed)])
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(description="The documents of the hyperparameters.", allow_abbrev=False)
    asked = p.add_mutually_exclusive_group(required=True)
    asked.add_argument("--write", action="store_true", help="write docs/hyperparameters.md and .ru.md")
    asked.add_argument("--check", action="store_true", help="exit code 1 if they differ from the declarations")
    args = p.parse_args(argv)
    if args.write:
        for language, path in DOCUMENTS.items():
            path.write_text(document(language), encoding="utf-8")
        return 0
    return int(any(path.read_text(encoding="utf-8") != document(language) for language, path in DOCUMENTS.items()))


if __name__ == "__main__":
    sys.exit(main())
