"""No hyperparameter is dead: each is read by code, and each has a row here that shows what it changes.

A new field needs a row in EFFECTS: a `Seen` with something cheap to observe that its change must change, or an
`Elsewhere` that names the test which would fail if the code ignored it.
"""

import ast
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from config.source_scan import names_read, program_files
from hparams import HParams, field_names
from support.parameter_effects import EFFECTS, Elsewhere, Seen
from support.paths import REPOSITORY

# ---- the claims


@cache
def places_read() -> dict[str, list[str]]:
    return names_read(path for path in program_files(REPOSITORY) if path.name != "hparams.py")


@pytest.mark.parametrize("name", field_names())
def test_every_hyperparameter_is_read_by_some_code(name: str) -> None:
    assert name in places_read(), f"{name} is declared in hparams.py, but no code outside it reads hp.{name}"


def test_every_hyperparameter_has_a_row_and_every_row_a_hyperparameter() -> None:
    lacking, left_over = set(field_names()) - EFFECTS.keys(), EFFECTS.keys() - set(field_names())
    assert not lacking, f"say in EFFECTS what a change of {sorted(lacking)} changes"
    assert not left_over, f"EFFECTS still has {sorted(left_over)}, which hparams.py no longer declares"


@pytest.mark.parametrize("name", [name for name, row in EFFECTS.items() if isinstance(row, Seen)])
def test_a_change_of_it_is_seen(name: str, tiny: Callable[..., HParams], tmp_path: Path) -> None:
    row = EFFECTS[name]
    assert isinstance(row, Seen) and row.change.startswith(f"{name}="), "a row changes its own parameter only"
    before = row.observe(tiny(row.base), tmp_path / "before")
    same = row.observe(tiny(row.base), tmp_path / "same")
    after = row.observe(tiny(f"{row.base},{row.change}"), tmp_path / "after")
    assert before == same, "what differs by itself shows nothing"
    assert before != after, f"{row.change} changed nothing in {row.observe.__name__}"


@pytest.mark.parametrize("name", [name for name, row in EFFECTS.items() if isinstance(row, Elsewhere)])
def test_the_test_that_shows_it_exists(name: str) -> None:
    row = EFFECTS[name]
    assert isinstance(row, Elsewhere)
    file, _, test = row.by.partition("::")
    source = (REPOSITORY / "tests" / file).read_text(encoding="utf-8")
    functions = {node.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)}
    assert test in functions, f"{row.by} does not exist any more"
    assert name in source, f"{file} never mentions {name}"
