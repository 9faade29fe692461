"""Every hyperparameter with its value, where the value came from, and what is allowed: `--show-params` and documents.

`python -m config.reference_docs --write` makes docs/hyperparameters.md and .ru.md anew from the declarations, `--check`
ends with exit code 1 if they say something else.
"""

import json
from typing import Literal

from common.translations import Language
from hparams import Resolved, field_info, field_names
from settings.help import read_help
from tools import format_value

Format = Literal["text", "md", "json"]
TEXT_COLUMNS = ("name", "value", "default", "origin", "unit", "range", "help")
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
