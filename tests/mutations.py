"""Proof that no parameter is decoration: take each one away from the code, and see which test notices.

    python tests/mutations.py [--only NAME,NAME] > proof.md

In a copy of the repository every read of one parameter (`hp.name`) becomes a constant, its default, so that the program
ignores the setting everywhere while the tests still set it. (Where a row of test_every_parameter.py changes it in the
tests' tiny model, the constant is that model's value: the model stays whole, and only the change is ignored.) Then
that row runs, and if it sees nothing, the unit tests that mention the parameter. Exit code 1 if any survives.

Each mutation runs in a fork of one process that has imported the libraries already: seconds a parameter. An
interrupted command goes on where it stopped (--results), as long as no file has changed.
"""

import argparse
import ast
import hashlib
import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from shutil import copyfile
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROWS = "tests/test_every_parameter.py"
LIBRARIES = (  # what every fork would import again
    "matplotlib.figure", "numpy", "pydantic", "yaml", "torch.utils.tensorboard", "librosa.filters", "scipy.signal",
    "soxr", "soundfile", "rich.console",
)  # fmt: skip
LIMIT_S, ALL_TESTS_S = 90, 600  # a mutant may never end: one that ignores `epochs` does not
HEAD = "| parameter | ignored at | always | noticed by | which said |\n|---|---|---|---|---|\n"


@dataclass(frozen=True)
class Subject:
    """One parameter: what the code gets in its place, and the test that claims to see it."""

    name: str
    value: object
    test: str


@dataclass(frozen=True)
class Verdict:
    """`test` failed and said so; no test: the mutation survived."""

    name: str
    places: tuple[str, ...]
    value: str
    test: str
    said: str

    @property
    def is_noticed(self) -> bool:
        return self.test != ""

    def row(self) -> str:
        caught = f"`{self.test}`" if self.is_noticed else "**SURVIVED**"
        said = self.said.replace("|", "\\|")
        return f"| `{self.name}` | {', '.join(self.places)} | `{self.value}` | {caught} | {said} |"


# ---- the mutation


class Ignoring(ast.NodeTransformer):
    """Puts a constant in place of every read of one parameter."""

    def __init__(self, name: str, value: object, holders: frozenset[str]) -> None:
        self.name, self.value, self.holders = name, value, holders
        self.lines: list[int] = []

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        self.generic_visit(node)
        holder = ast.unparse(node.value).rpartition(".")[2]
        if node.attr != self.name or holder not in self.holders or not isinstance(node.ctx, ast.Load):
            return node
        self.lines.append(node.lineno)
        return ast.copy_location(ast.parse(repr(self.value), mode="eval").body, node)


def ignoring(source: str, name: str, value: object, *, holders: frozenset[str]) -> tuple[str, list[int]]:
    """The source that ignores the parameter, and the lines where it was read; an untouched source stays as it is."""
    visitor = Ignoring(name, value, holders)
    mutated = visitor.visit(ast.parse(source))
    return (ast.unparse(mutated) if visitor.lines else source), visitor.lines


class Copy:
    """A copy of the repository's files, in which one parameter at a time is ignored."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
        self.files = [name for name in names if name and (ROOT / name).is_file()]
        self.sources: dict[str, str] = {}
        for name in self.files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            copyfile(ROOT / name, folder / name)
            if name.endswith(".py"):
                self.sources[name] = (folder / name).read_text(encoding="utf-8")

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for name in sorted(self.files):
            if name.endswith((".py", ".yaml", ".toml")):
                digest.update(name.encode() + (self.folder / name).read_bytes())
        return digest.hexdigest()[:12]

    def mutate(self, subject: Subject, program: Iterable[str], holders: frozenset[str]) -> tuple[str, ...]:
        """Writes the program that ignores it. -> `file:line` of each read"""
        places = []
        for name in program:
            mutated, lines = ignoring(self.sources[name], subject.name, subject.value, holders=holders)
            places += [f"{name}:{line}" for line in dict.fromkeys(lines)]
            if lines:
                (self.folder / name).write_text(mutated, encoding="utf-8")
        assert places, f"no code reads hp.{subject.name}"
        return tuple(places)

    def mend(self, places: Sequence[str]) -> None:
        for name in {place.rpartition(":")[0] for place in places}:
            (self.folder / name).write_text(self.sources[name], encoding="utf-8")

    def tests_about(self, name: str) -> list[str]:
        """The files of unit tests that mention the parameter."""
        word = re.compile(rf"\b{name}\b")
        files = [f for f in self.files if f.startswith("tests/test_") and f != ROWS]
        return [f for f in files if word.search(self.sources[f])]


# ---- in a fork


class Failures:
    """Collects which tests failed, and what each said."""

    def __init__(self) -> None:
        self.found: list[tuple[str, str]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            self.found.append((report.nodeid, crash.message if crash else str(report.longrepr)))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.found.append((report.nodeid, str(report.longrepr).strip().splitlines()[-1]))


def enter(folder: Path) -> None:
    """Makes the copy the repository of this process."""
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - as long as the process lives
    sys.dont_write_bytecode = True  # two mutants of one second and size would share their bytecode
    original = (str(ROOT), str(ROOT / "tests"))  # but not a virtual environment in it
    sys.path[:] = [str(folder / "tests"), str(folder), *(p for p in sys.path if p not in original)]
    os.chdir(folder)


def list_subjects(folder: Path) -> tuple[list[Subject], list[str], frozenset[str]]:
    """-> all parameters, the files of the program, and what its code calls the holders of hyperparameters"""
    enter(folder)
    from config.source_scan import HOLDERS, program_files
    from hparams import create_hparams, field_info
    from support.corpora import tiny_settings
    from support.parameter_effects import EFFECTS, Seen

    subjects = []
    for name, row in EFFECTS.items():
        if isinstance(row, Seen):
            value = getattr(create_hparams(tiny_settings(folder, row.base)), name)
            test = f"{ROWS}::test_a_change_of_it_is_seen[{name}]"
        else:
            value, test = field_info(name).default, f"tests/{row.by}"
        subjects.append(Subject(name, value, test))
    files = [str(path.relative_to(folder)) for path in program_files(folder) if path.name != "hparams.py"]
    return subjects, files, HOLDERS


def failures(folder: Path, tests: Sequence[str], *options: str) -> list[tuple[str, str]]:
    """-> the tests that failed, each with what it said"""
    enter(folder)
    seen = Failures()
    place = ["--rootdir", str(folder), "-c", str(folder / "pyproject.toml"), "--basetemp", f"{folder}-temporary"]
    alone = ["-p", "xdist.plugin", "-n", "0", "-p", "no:cacheprovider"]
    every_tier = ["-m", ""]
    status = pytest.main(["-q", *every_tier, *alone, *place, *options, *tests], plugins=[seen])
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) and not seen.found:
        return [(tests[0], f"pytest ended with {status!r}")]
    return seen.found


def _answer(pipe: Any, function: Any, arguments: tuple) -> None:
    pipe.send(function(*arguments))


def in_fork(function: Any, *arguments: object, limit_s: float = LIMIT_S) -> Any:
    """What `function` returns in a fork of this process; TimeoutError if it takes too long."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(theirs, function, arguments))
    process.start()
    theirs.close()
    try:
        if not ours.poll(limit_s):
            raise TimeoutError
        return ours.recv()
    finally:
        process.kill()
        process.join()


# ---- verdicts


def judged(
    copy: Copy, subject: Subject, places: tuple[str, ...], tests: Sequence[str], *, limit_s: float = LIMIT_S
) -> Verdict:
    """Whether any of `tests` notices that the copy ignores the parameter; the first that does."""
    try:
        failed = in_fork(failures, copy.folder, tests, "-x", limit_s=limit_s)
    except TimeoutError:
        failed = [(tests[0], f"no end within {limit_s} s")]
    test, said = failed[0] if failed else ("", "")
    said = said.partition("\n")[0].replace(f"{copy.folder}-temporary/", "")
    said = said if len(said) <= 150 else f"{said[:147]}..."
    return Verdict(subject.name, places, repr(subject.value).replace(str(copy.folder), "FOLDER"), test, said)


def verdict_on(
    copy: Copy, subject: Subject, program: Sequence[str], holders: frozenset[str], tests: Sequence[str]
) -> Verdict:
    """By `tests`, or by the parameter's own test, or by all that mention it: what fails anyway shows nothing."""
    places = copy.mutate(subject, program, holders)
    verdict = judged(copy, subject, places, tests or [subject.test])
    copy.mend(places)
    others = copy.tests_about(subject.name)
    if not (verdict.is_noticed or tests) and others:
        broken = [f"--deselect={test}" for test, _ in in_fork(failures, copy.folder, others, limit_s=ALL_TESTS_S)]
        copy.mutate(subject, program, holders)
        verdict = judged(copy, subject, places, [*others, *broken], limit_s=ALL_TESTS_S)
        copy.mend(places)
    return verdict


def remembered(path: Path, fingerprint: str) -> dict[str, Verdict]:
    """The verdicts of an earlier launch on the same files."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        content = json.loads(line)
        if content.pop("fingerprint") == fingerprint:
            found[content["name"]] = Verdict(**content | {"places": tuple(content["places"])})
    return found


def verdicts(copy: Copy, args: argparse.Namespace) -> Iterator[Verdict]:
    """One after the other, each written down for a later launch."""
    subjects, program, holders = in_fork(list_subjects, copy.folder)
    chosen = [s for s in subjects if not args.only or s.name in args.only]
    if unknown := set(args.only) - {s.name for s in subjects}:
        sys.exit(f"--only: no parameter is called {', '.join(sorted(unknown))}")
    tests = args.tests or list(dict.fromkeys(subject.test for subject in chosen))
    failed = in_fork(failures, copy.folder, tests, "-x", limit_s=ALL_TESTS_S)
    if failed:
        sys.exit(f"without any mutation {failed[0][0]} fails: {failed[0][1]}")
    fingerprint = copy.fingerprint()
    known = {} if args.tests else remembered(args.results, fingerprint)
    for subject in chosen:
        verdict = known.get(subject.name) or verdict_on(copy, subject, program, holders, args.tests)
        if subject.name not in known and not args.tests:
            with args.results.open("a", encoding="utf-8") as f:
                f.write(json.dumps({"fingerprint": fingerprint, **asdict(verdict)}) + "\n")
        yield verdict


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=lambda text: text.split(","), default=[], metavar="NAME,NAME")
    parser.add_argument("--tests", nargs="+", default=[], metavar="TEST", help="would these notice? instead of its own")
    parser.add_argument("--results", type=Path, default=ROOT / "mutations.jsonl", help="verdicts so far, to go on from")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args, began = arguments(argv), time.monotonic()
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # of whatever else is installed; it takes a second
    for library in LIBRARIES:
        import_module(library)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Copy(Path(folder).resolve() / "copy")
        print(HEAD, end="")
        for verdict in verdicts(copy, args):
            found.append(verdict)
            print(verdict.row(), flush=True)
    survived = [v.name for v in found if not v.is_noticed]
    print(f"\n{len(found)} parameters in {time.monotonic() - began:.0f} s, survivors: {', '.join(survived) or 'none'}")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
