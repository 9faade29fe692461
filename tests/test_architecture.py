"""Claims about the source itself: who may import whom, how long things may get, and what may be in it."""

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from support.paths import REPOSITORY

FUNCTION_LINES, FILE_LINES = 60, 480
LONGER = {"hparams.py": "declarations may take the length they need"}

# From the bottom up. A module may import what stands in a lower row, and its own package. A package is named once for
# all its modules, unless one of them stands apart. A new module needs a place here: the lowest that its imports allow.
ROWS = (
    ("errors",),
    ("files",),
    (
        "switches", "cache", "messages", "metrics", "plots", "sampling", "source_checks", "text.symbols",
        "reduction", "recompute", "attention", "module_norms", "pulse", "threads",
    ),
    ("tools", "run_log", "stopping"),
    ("text", "hparams", "launching", "run_files"),
    ("params_view", "layers", "audio", "asr", "schedule", "precision", "recovery", "signals", "distributed",
     "run_setup"),
    (
        "kernels", "decoder_loops", "filelists", "demo", "console", "sample_files", "checkpoint", "enhancement",
    ),
    ("features", "smart_tuner.monitors", "smart_tuner.search_space", "diagnosis", "gst", "mmi", "speakers"),
    ("report", "batching", "mel_files", "drop_frames"),
    ("loading",),
    ("data_utils", "model"),
    ("loss_function",),
    ("auxiliary_losses",),
    ("validation", "stepper", "saving", "voices"),
    ("healing", "interval"),
    ("trainer", "speaking"),
    ("composition", "judging", "compatibility", "rescue"),
    ("smart_tuner",),
    ("train", "synthesize", "evaluate", "emergency_recovery", "run_report", "multiproc", "benchmarks"),
)  # fmt: skip
RANKS = {name: rank for rank, row in enumerate(ROWS) for name in row}
COMMANDS = frozenset(ROWS[-1])
# create_hparams(verbose=True) prints, as its ancestor did; demo.speak is a child process, its stderr for its parent
MAY_PRINT = COMMANDS | {"hparams", "demo.speak"}


def is_test(path: Path) -> bool:
    return "tests" in path.relative_to(REPOSITORY).parts or path.name.startswith(("test_", "conftest"))


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


def place_of(module: str) -> str | None:
    """The entry of ROWS for a module: its own or its package's."""
    while module not in RANKS:
        module, dot, _ = module.rpartition(".")
        if not dot:
            return None
    return module


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


def test_every_module_has_its_place_in_the_rows() -> None:
    homeless = sorted(module for module in own_modules() if place_of(module) is None)
    assert homeless == [], f"give {homeless} a row in ROWS: above all that they import"


def test_the_rows_name_only_modules_that_exist() -> None:
    exist = own_modules() | {package for module in own_modules() for package in packages_of(module)}
    assert sorted(set(RANKS) - exist) == []


def packages_of(module: str) -> list[str]:
    """`a.b.c` is in `a.b` and in `a`."""
    parts = module.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts))]


def test_imports_go_down_only() -> None:
    upward = [
        f"{place}: {importer} imports {imported}"
        for place, importer, imported in all_imports()
        if (mine := place_of(importer)) != (theirs := place_of(imported))
        and mine is not None
        and theirs is not None
        and RANKS[mine] <= RANKS[theirs]
    ]
    assert upward == []


def test_nothing_imports_a_command() -> None:
    importing = [
        place
        for place, importer, imported in all_imports()
        if place_of(imported) in COMMANDS and place_of(importer) != place_of(imported)
    ]
    assert importing == []


def test_the_trainer_and_what_it_uses_know_nothing_of_the_tuner() -> None:
    below = {name for name, rank in RANKS.items() if rank <= RANKS["trainer"] and not name.startswith("smart_tuner")}
    reaching = [
        place
        for place, importer, imported in all_imports()
        if place_of(importer) in below and imported.split(".")[0] == "smart_tuner"
    ]
    assert reaching == []


def test_monitors_know_nothing_of_models_or_training() -> None:
    forbidden = {"model", "layers", "kernels", "loss_function", "trainer", "checkpoint", "data_utils"}
    reaching = [
        place
        for place, importer, imported in all_imports()
        if importer.startswith("smart_tuner.monitors") and imported.split(".")[0] in forbidden
    ]
    assert reaching == []


def test_functions_fit_on_a_screen() -> None:
    long = [
        f"{path.relative_to(REPOSITORY)}:{node.lineno}: {node.name} has {node.end_lineno - node.lineno + 1} lines"
        for path in source_files()
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > FUNCTION_LINES
    ]
    assert long == []


def test_files_stay_short() -> None:
    lengths = {
        str(path.relative_to(REPOSITORY)): len(path.read_text(encoding="utf-8").splitlines()) for path in source_files()
    }
    assert {name: n for name, n in lengths.items() if n > FILE_LINES and name not in LONGER} == {}


def test_a_handler_that_catches_everything_says_why() -> None:
    unexplained = []
    for path in source_files():
        lines = path.read_text(encoding="utf-8").splitlines()
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.ExceptHandler) and catches_everything(node):
                line = lines[node.lineno - 1]
                if not re.search(r"# noqa: BLE001 - \S+", line):
                    unexplained.append(f"{path.relative_to(REPOSITORY)}:{node.lineno}: {line.strip()}")
    assert unexplained == []


def catches_everything(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    names = {node.id for node in ast.walk(handler.type) if isinstance(node, ast.Name)}
    return bool(names & {"Exception", "BaseException"})


def test_only_commands_print() -> None:
    printing = [
        f"{path.relative_to(REPOSITORY)}:{node.lineno}"
        for path in source_files()
        if not {module_name(path), place_of(module_name(path))} & MAY_PRINT
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert printing == []


def test_no_file_names_a_path_of_somebodys_machine() -> None:
    local = re.compile(r"(?<![\w./~}])/(?:work|root|home|Users)/\w")
    found = []
    for path in repository_files():
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:  # arrays and sounds
            continue
        name = path.relative_to(REPOSITORY)
        found += [f"{name}:{i}: {line.strip()[:80]}" for i, line in enumerate(lines, start=1) if local.search(line)]
    assert found == []


def test_python_files_are_ascii() -> None:
    found = [
        f"{path.relative_to(REPOSITORY)}:{i}"
        for path in source_files()
        for i, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if not line.isascii()
    ]
    assert found == []
