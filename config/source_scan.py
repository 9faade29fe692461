"""What the source says about hyperparameters, read without running it: declared twice, or read by nobody."""

import ast
from collections.abc import Iterable
from functools import cache
from pathlib import Path

HOLDERS = frozenset({"hp", "hparams", "audio", "data", "params", "shape"})  # what hyperparameters are called where read


def syntax_problem(path: Path) -> tuple[int, str] | None:
    """Line and reason if Python can't read a file."""
    try:
        # compiled, not only parsed: a keyword argument given twice is found after parsing
        compile(path.read_text(encoding="utf-8"), str(path), "exec", dont_inherit=True)
    except SyntaxError as error:
        return error.lineno or 0, error.msg
    return None


def declared_twice(path: Path) -> list[tuple[str, int, int]]:
    """Fields (name, first line, second line) that the classes of one file annotate more than once between them."""
    first: dict[str, int] = {}
    again = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.ClassDef):
            continue
        for statement in node.body:
            if not _is_declaration(statement):
                continue
            name = statement.target.id  # type: ignore[attr-defined]
            if name in first:
                again.append((name, first[name], statement.lineno))
            first.setdefault(name, statement.lineno)
    return again


def _is_declaration(statement: ast.stmt) -> bool:
    """`name: type = some_field(...)`, as against a class variable or a dataclass' field."""
    if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
        return False
    return isinstance(statement.value, ast.Call) and "ClassVar" not in ast.unparse(statement.annotation)


def names_read(paths: Iterable[Path]) -> dict[str, list[str]]:
    """Every `name` that is read as `hp.name` (or of another holder of hyperparameters), with `file:line` of each."""
    places: dict[str, list[str]] = {}
    for path in paths:
        for name, line in _reads(path.read_text(encoding="utf-8")):
            places.setdefault(name, []).append(f"{path}:{line}")
    return places


@cache
def _reads(source: str) -> tuple[tuple[str, int], ...]:
    """(name, line) of each; kept, as one command asks several times about all files."""
    return tuple(
        (node.attr, node.lineno)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Load)
        and ast.unparse(node.value).rpartition(".")[2] in HOLDERS
    )


def texts_found(paths: Iterable[Path], texts: Iterable[str]) -> list[tuple[str, str]]:
    """(text, `file:line`) wherever one of `texts` stands in the source as a whole string, as a name in a list does."""
    wanted = frozenset(texts)
    return [
        (node.value, f"{path}:{node.lineno}")
        for path in paths
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in wanted
    ]


def program_files(root: Path) -> list[Path]:
    """The trainer's own source: top level and packages, without tests and what training never runs."""
    in_packages = [path for package in root.glob("*/__init__.py") for path in package.parent.rglob("*.py")]
    found = [*root.glob("*.py"), *in_packages]
    return sorted({path for path in found if not path.name.startswith("test_") and "tests" not in path.parts})
