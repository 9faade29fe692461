"""Everything that users may be told: prose in the source and in the files of texts."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import yaml

from support.paths import REPOSITORY

TEXT_FILES = ("common/messages.yaml", "config/hparams_help.yaml", "monitoring/telegram.yaml")
NOT_FOR_USERS = ("tests", "benchmarks")


@dataclass(frozen=True)
class Message:
    """place: file and line. module: that says it, or the file of texts. text: {} where values are filled in."""

    place: str
    module: str
    text: str


@cache
def all_messages() -> tuple[Message, ...]:
    """Strings of several words; of docstrings those that --help shows."""
    found: list[Message] = []
    for path in sorted(REPOSITORY.rglob("*.py")):
        relative = path.relative_to(REPOSITORY)
        if relative.parts[0] not in NOT_FOR_USERS and not any(part.startswith(".") for part in relative.parts):
            module = ".".join(relative.with_suffix("").parts).removesuffix(".__init__")
            prose = prose_of(path.read_text(encoding="utf-8"))
            found += [Message(f"{relative}:{line}", module, text) for line, text in prose]
    for name in TEXT_FILES:
        texts = yaml.safe_load((REPOSITORY / name).read_text(encoding="utf-8"))
        found += [Message(f"{name}: {key}", name, text) for key, text in _leaves(texts)]
    return tuple(found)


def prose_of(source: str) -> Iterator[tuple[int, str]]:
    tree = ast.parse(source)
    skipped = {id(node) for node in _docstrings(tree)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            skipped |= {id(inner) for inner in ast.walk(node) if inner is not node}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.JoinedStr):
            text = "".join(str(v.value) if isinstance(v, ast.Constant) else "{}" for v in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value.replace("%s", "{}").replace("%d", "{}")
        else:
            continue
        if " " in text:
            yield node.lineno, text


def _docstrings(tree: ast.Module) -> Iterator[ast.AST]:
    is_shown = any(isinstance(node, ast.Name) and node.id == "__doc__" for node in ast.walk(tree))
    for node in ast.walk(tree):
        has_one = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if has_one and ast.get_docstring(node) and not (node is tree and is_shown):
            assert isinstance(node.body[0], ast.Expr)
            yield node.body[0].value


def _leaves(texts: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(texts, dict):
        for name, value in texts.items():
            yield from _leaves(value, f"{key}.{name}".strip("."))
    elif isinstance(texts, str):
        yield key, texts


