"""Who calls a public function with a tensor or an array finds its shape in the docstring."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.paths import REPOSITORY

TENSOR = re.compile(r"\b(Tensor|ndarray)\b")
SHAPE = re.compile(r"\[[^\]]*\]")  # [B, T_mel], [n], [...] for any, [] for a number
FOR_ALL_OF_A_CLASS = ("__init__", "__call__", "forward", "backward")  # its docstring may speak for these
EXEMPT = {
    "modules/decoder_loops.py": "DecoderParts",  # a protocol: the shapes are at Decoder's methods of these names
}


def takes_or_returns_tensors(function: ast.FunctionDef) -> bool:
    a = function.args
    arguments = [*a.posonlyargs, *a.args, *a.kwonlyargs, a.vararg, a.kwarg]
    annotations = [one.annotation for one in arguments if one is not None and one.annotation is not None]
    return any(TENSOR.search(ast.unparse(one)) for one in [*annotations, *filter(None, [function.returns])])


def without_shapes(tree: ast.Module | ast.ClassDef, prefix: str = "") -> Iterator[str]:
    """The public functions and methods that deal in tensors and whose docstring has no shape."""
    of_class = ast.get_docstring(tree) or "" if isinstance(tree, ast.ClassDef) else ""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from without_shapes(node, f"{prefix}{node.name}.")
        elif isinstance(node, ast.FunctionDef) and takes_or_returns_tensors(node):
            is_public = not node.name.startswith("_") or node.name in FOR_ALL_OF_A_CLASS
            said = (ast.get_docstring(node) or "") + (of_class if node.name in FOR_ALL_OF_A_CLASS else "")
            if is_public and not SHAPE.search(said):
                yield prefix + node.name


def source_files() -> list[Path]:
    wings = [path.parent for path in REPOSITORY.glob("*/__init__.py") if path.parent.name != "tests"]
    folders = [*wings, REPOSITORY / "benchmarks"]
    return sorted({*REPOSITORY.glob("*.py"), *(path for folder in folders for path in folder.rglob("*.py"))})


def test_every_public_function_of_tensors_gives_their_shapes() -> None:
    missing = []
    for path in source_files():
        name = str(path.relative_to(REPOSITORY))
        found = without_shapes(ast.parse(path.read_text(encoding="utf-8")))
        missing += [f"{name}: {function}" for function in found if function.split(".")[0] != EXEMPT.get(name)]
    assert missing == []


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ('def f(x: Tensor) -> int:\n    """Of x."""', ["f"]),
        ('def f(x: Tensor) -> int:\n    """Of x [B, T]."""', []),
        ("def f() -> np.ndarray: ...", ["f"]),
        ("def _f(x: Tensor) -> Tensor: ...", []),
        ('class A:\n    """x [B]."""\n    def forward(self, x: Tensor): ...\n    def g(self, x: Tensor): ...', ["A.g"]),
        ("class _A:\n    def f(self, x: Tensor): ...", []),
    ],
)
def test_a_missing_shape_would_be_found(source: str, expected: list[str]) -> None:
    assert list(without_shapes(ast.parse(source))) == expected
