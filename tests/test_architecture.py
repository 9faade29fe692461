"""Claims about the source itself: who may import whom, how long things may get, and what may be in it."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterable

import pytest

from support.paths import REPOSITORY
from support.sources import (
    all_imports,
    is_test,
    module_name,
    own_modules,
    repository_files,
    source_files,
    tree_of,
)

FUNCTION_LINES, FILE_LINES = 60, 450

# Wings from the bottom up: a file imports its own wing and lower rows. A new file in a wing needs no entry.
ROWS = (
    ("common", "layers"),
    ("text", "tools", "checkpointing", "listeners"),
    ("settings",),
    ("hparams",),
    ("audio", "run_directory", "config", "parallel", "modules"),
    ("corpus", "kernels", "recovery"),
    ("model", "data_utils", "monitoring"),
    ("loss_function", "speech"),
    ("losses", "serving", "player"),
    ("training", "exporting", "evaluation"),
    ("smart_tuner",),
    (
        "train",
        "multiproc",
        "synthesize",
        "evaluate",
        "export",
        "serve",
        "emergency_recovery",
        "prepare_data",
        "test_hparams_compatibility",
        "benchmarks",
        "docs",
        "tacotron2_trainer",
    ),
)
RANKS = {wing: rank for rank, row in enumerate(ROWS) for wing in row}
COMMANDS = frozenset(ROWS[-1])
CARD = frozenset(("hparams", "tools", "data_utils", "model", "layers", "loss_function"))
ROOT_FILES = (COMMANDS - {"benchmarks", "docs", "tacotron2_trainer"}) | CARD
# create_hparams(verbose=True) prints, as NVIDIA's does; common.cli a command's errors; the others are child processes
MAY_PRINT = COMMANDS | {"hparams", "common.cli", "training.listening_child"}
MAY_PRINT |= {"corpus.demo.espeak", "corpus.demo.hibari_speech"}  # processes of their own
NETWORK_AND_TRAINING = frozenset(
    {"model", "layers", "modules", "kernels", "loss_function", "losses", "training", "corpus"}
)
WITHOUT_TORCH = (
    "recovery.ladder",
    "recovery.advice",
    "speech.metrics",
    "training.schedules",
    "run_directory",
    "player",
)
WITHOUT_NUMPY = ("common",)


def wing_of(module: str) -> str:
    """`python -m wing` is a command, whatever wing it speaks for."""
    return "train" if module.endswith(".__main__") else module.split(".")[0]


def test_every_wing_has_a_row_and_every_row_names_wings_that_exist() -> None:
    assert {wing_of(module) for module in own_modules()} == set(RANKS)


def test_the_root_holds_the_commands_and_the_modules_of_the_card() -> None:
    assert {path.stem for path in REPOSITORY.glob("*.py")} == ROOT_FILES and len(ROOT_FILES) <= 15


def test_the_map_names_every_wing_and_shows_the_rows() -> None:
    text = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = [f"| {i} | {', '.join(f'`{wing}`' for wing in row)} |" for i, row in enumerate(ROWS[:-1], start=1)]
    assert [row for row in rows if row not in text] == []
    assert [w for w in RANKS if (REPOSITORY / w).is_dir() and f"\n| `{w}` |" not in text] == []


def upward_imports(imports: Iterable[tuple[str, str, str]]) -> list[str]:
    """Imports of another wing in the same or a higher row. -> where, who imports what"""
    return [
        f"{place}: {importer} imports {imported}"
        for place, importer, imported in imports
        if wing_of(importer) != wing_of(imported) and RANKS[wing_of(importer)] <= RANKS[wing_of(imported)]
    ]


def test_imports_go_down_only() -> None:
    assert upward_imports(all_imports()) == []


def test_an_import_up_or_sideways_would_be_found() -> None:
    broken = [("a:1", "corpus.batch", "training.trainer"), ("b:1", "kernels.ctc", "corpus.batch")]
    assert len(upward_imports(broken)) == 2
    assert upward_imports([("c:1", "training.trainer", "corpus.batch"), ("d:1", "corpus.batch", "corpus.loader")]) == []


def circle_in(edges: Iterable[tuple[str, str]]) -> list[str]:
    """The modules that take part in circular imports; [] if there are none."""
    left: dict[str, set[str]] = {}
    for importer, imported in edges:
        left.setdefault(importer, set()).add(imported)
    while free := [name for name, imported in left.items() if not imported & set(left)]:
        for name in free:
            del left[name]
    return sorted(left)


def test_no_files_import_each_other_in_a_circle() -> None:
    assert circle_in((importer, imported) for _, importer, imported in all_imports() if importer != imported) == []


def test_a_circle_would_be_found() -> None:
    assert circle_in([("a", "b"), ("b", "c"), ("c", "a"), ("d", "a")]) == ["a", "b", "c", "d"]
    assert circle_in([("a", "b"), ("b", "c"), ("a", "c")]) == []


def test_nothing_imports_a_command() -> None:
    importing = [
        place
        for place, importer, imported in all_imports()
        if wing_of(imported) in COMMANDS and wing_of(importer) != wing_of(imported)
    ]
    assert importing == []


def test_only_commands_import_the_tuner() -> None:
    reaching = [
        place
        for place, importer, imported in all_imports()
        if wing_of(imported) == "smart_tuner" and wing_of(importer) not in COMMANDS | {"smart_tuner"}
    ]
    assert reaching == []


def test_monitoring_knows_nothing_of_the_network_or_of_training() -> None:
    reaching = [
        place
        for place, importer, imported in all_imports()
        if wing_of(importer) == "monitoring" and wing_of(imported) in NETWORK_AND_TRAINING
    ]
    assert reaching == []


def modules_under(names: Iterable[str]) -> list[str]:
    return sorted(m for m in own_modules() for name in names if m == name or m.startswith(f"{name}."))


@pytest.mark.parametrize(
    ("names", "unwanted"), [(WITHOUT_TORCH, ("torch",)), (WITHOUT_NUMPY, ("torch", "numpy"))], ids=["torch", "numpy"]
)
def test_what_must_be_light_loads_light(names: tuple[str, ...], unwanted: tuple[str, ...]) -> None:
    modules = modules_under(names)
    assert modules
    code = f"import sys, {', '.join(modules)}; print([name for name in {unwanted} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_package_begins_with_what_it_owns_and_imports_nothing() -> None:
    with_more = ("common", "text", "tacotron2_trainer")  # common: what libraries must be told before they are loaded
    for path in source_files():
        if path.name == "__init__.py" and path.parent.name not in with_more:
            assert ast.get_docstring(tree_of(path)), f"{path} does not say what its wing owns"
            assert len(tree_of(path).body) == 1, f"{path} holds more than its docstring"


def test_tests_of_a_wing_mirror_its_files() -> None:
    """test_resume.py and test_resume_warm_start.py are both of resume.py."""
    folders = {path.parent for path in source_files()} - {REPOSITORY}
    strangers = [
        str(path.relative_to(REPOSITORY))
        for folder in folders
        for path in (REPOSITORY / "tests" / folder.relative_to(REPOSITORY)).glob("test_*.py")
        if not any(f"{path.stem}_".startswith(f"test_{source.stem}_") for source in folder.glob("*.py"))
    ]
    assert strangers == []


def test_every_logger_is_below_the_projects_own() -> None:
    bare = [
        f"{path.relative_to(REPOSITORY)}:{node.lineno}"
        for path in source_files()
        if module_name(path) != "common.log"
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "getLogger"
        and (not node.args or ast.unparse(node.args[0]) == "__name__")  # others name a library's
    ]
    assert bare == []


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
    assert {name: n for name, n in lengths.items() if n > FILE_LINES} == {}


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
        if not {module_name(path), wing_of(module_name(path))} & MAY_PRINT and path.name != "__main__.py"
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


def test_no_test_file_imports_another() -> None:
    importing = re.compile(r"^\s*(?:from|import) (?:tests\.|test_(?!hparams_compatibility))", re.M)
    found = [str(p.relative_to(REPOSITORY)) for p in repository_files() if is_test(p) and p.suffix == ".py"
             and importing.search(p.read_text(encoding="utf-8"))]  # fmt: skip
    assert found == []
