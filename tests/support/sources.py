"""The source as tests look at it: its files, and who imports whom."""

import ast
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from support.paths import REPOSITORY


def is_test(path: Path) -> bool:
    return "tests" in path.relative_to(REPOSITORY).parts


@cache
def repository_files() -> tuple[Path, ...]:
    """Tracked files, and new ones that git does not ignore."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(listing, cwd=REPOSITORY, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("git is not installed: what belongs to the repository is not known")
    if done.returncode:
        pytest.skip(f"not a git checkout: {done.stderr.strip()}")
    paths = (REPOSITORY / name for name in done.stdout.split("\0") if name)
    return tuple(path for path in paths if path.is_file())


def source_files() -> list[Path]:
    return [path for path in repository_files() if path.suffix == ".py" and not is_test(path)]


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def module_name(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def own_modules() -> frozenset[str]:
    return frozenset(module_name(path) for path in source_files())


def imported_modules(path: Path) -> Iterator[tuple[int, str]]:
    """Line and name of every import of a module of ours, wherever in the file it stands."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            assert node.level == 0, f"{path}:{node.lineno}: relative import; modules import flat"
            names = [f"{base}.{alias.name}" for alias in node.names]
            found = [name if name in own_modules() else base for name in names]
        else:
            continue
        yield from ((node.lineno, name) for name in dict.fromkeys(found) if name in own_modules())


def all_imports() -> list[tuple[str, str, str]]:
    """(place in the source, importing module, imported module)"""
    return [
        (f"{path.relative_to(REPOSITORY)}:{line}", module_name(path), name)
        for path in source_files()
        for line, name in imported_modules(path)
    ]
