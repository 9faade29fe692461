"""The reference of all parameters in two languages: `python -m config.reference_docs --write`."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from common.cli import Parser
from common.translations import Language, messages
from config.show_params import _cell, _markdown, describe_params
from hparams import HParams, field_info, field_names, resolve_hparams
from settings.presets import preset_names
from tools import format_value

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS: dict[Language, Path] = {
    "en": ROOT / "docs" / "hyperparameters.md",
    "ru": ROOT / "docs" / "hyperparameters.ru.md",
}


# ---- documents


def document(language: Language) -> str:
    """The reference of all hyperparameters and presets as Markdown."""
    texts = messages("documents", language)
    parts = [
        texts["title"],
        texts["intro"].format(n=len(field_names())),
        texts["affects"],
        *_sections(language),
        texts["presets"],
        _markdown([texts["preset_columns"].split("|"), *_presets()]),
    ]
    return "\n\n".join(parts) + "\n"


def section_of(name: str) -> str:
    """The class of hparams.py that declares it; what audio and model share stands with audio."""
    owner = next(c.__name__ for c in reversed(HParams.__mro__) if name in vars(c).get("__annotations__", {}))
    return "AudioParams" if owner == "MelShape" else owner


def _sections(language: Language) -> Iterator[str]:
    """Heading and table of each section, in the order of hparams.py."""
    texts, facts = messages("documents", language), describe_params(resolve_hparams(), language=language)
    for section, names in groupby(field_names(), key=section_of):
        yield f"## {texts[section]}"
        yield _markdown([texts["columns"].split("|"), *(_row(n, facts[n], yes=texts["mutable"]) for n in names)])


def _row(name: str, facts: Mapping[str, Any], *, yes: str) -> list[str]:
    spec = field_info(name)
    cells = [_cell(column, facts[column]) for column in ("default", "help", "range", "unit", "type", "aliases")]
    return [f"`{name}`", *cells, spec.affects, yes if spec.mutable else ""]


def _presets() -> list[list[str]]:
    rows = []
    for preset in preset_names():
        resolved = resolve_hparams(preset=preset)
        values = resolved.hparams.canonical()
        changed = [f"{n}={format_value(values[n])}" for n, origin in resolved.origins.items() if origin != "default"]
        rows.append([f"`{preset}`", " ".join(f"`{text}`" for text in changed)])
    return rows


def parser() -> Parser:
    p = Parser(prog="python -m config.reference_docs", description="The documents of the hyperparameters.")
    asked = p.add_mutually_exclusive_group(required=True)
    asked.add_argument("--write", action="store_true", help="write docs/hyperparameters.md and .ru.md")
    asked.add_argument("--check", action="store_true", help="exit code 1 if they differ from the declarations")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    if args.write:
        for language, path in DOCUMENTS.items():
            path.write_text(document(language), encoding="utf-8")
        return 0
    return int(any(path.read_text(encoding="utf-8") != document(language) for language, path in DOCUMENTS.items()))


if __name__ == "__main__":
    sys.exit(main())
