"""The documents hold: generated ones fit the declarations, links and commands lead somewhere, both languages match."""

import ast
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from common.cli import with_dashes
from config import reference_docs, show_params
from config.reference_docs import DOCUMENTS, document, main
from hparams import field_names, resolve_hparams
from settings.presets import preset_names
from support.links import name_of, problem_of_link, without_code
from support.paths import REPOSITORY

GENERATED = frozenset(DOCUMENTS.values())
GUIDES = (
    "README", "docs/quickstart", "docs/your_own_voice", "docs/troubleshooting", "docs/parameters",
    "docs/gpu_and_several_machines", "docs/monitoring", "docs/recovery", "docs/tuning", "docs/preparing_data",
    "docs/languages", "docs/speaking", "docs/judging_a_voice", "docs/python_api",
)  # fmt: skip
TRANSLATED = tuple(guide for guide in GUIDES if (REPOSITORY / f"{guide}.ru.md").exists())
READ_BY_USERS = (*(f"{guide}.md" for guide in GUIDES), *(f"{guide}.ru.md" for guide in TRANSLATED))
RECORDS = (
    "docs/performance.md", "docs/experiments.md", "docs/reliability.md", "docs/vocoders_measured.md",
    "docs/russian_sentences.md", "docs/decisions.md",
)  # fmt: skip
LONGEST_LINE, MEAN_SENTENCE, LONGEST_SENTENCE = 119, 16, 35
README_LINES = 120


# ---- made from declarations


@pytest.mark.parametrize("language", DOCUMENTS)
def test_the_document_says_what_the_declarations_say(language: show_params.Language) -> None:
    stored = DOCUMENTS[language].read_text(encoding="utf-8")
    assert stored == document(language), "run `python -m config.reference_docs --write`"


@pytest.mark.parametrize("language", DOCUMENTS)
def test_the_document_has_a_row_for_every_parameter_and_preset(language: show_params.Language) -> None:
    first_cells = [line.split("|")[1].strip(" `") for line in document(language).splitlines() if line.startswith("|")]
    assert [cell for cell in first_cells if cell in field_names()] == list(field_names())
    assert [cell for cell in first_cells if cell in preset_names()] == preset_names()


def test_check_notices_a_drifted_document_and_write_mends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = {language: tmp_path / path.name for language, path in DOCUMENTS.items()}
    monkeypatch.setattr(reference_docs, "DOCUMENTS", paths)
    assert main(["--write"]) == 0 == main(["--check"])
    path = paths["ru"]
    path.write_text(path.read_text(encoding="utf-8").replace("48", "49", 1), encoding="utf-8")
    assert main(["--check"]) == 1


# ---- written by hand: links


def documents() -> list[Path]:
    return sorted(p for folder in ("", "docs") for p in (REPOSITORY / folder).glob("*.md"))


def links(path: Path) -> Iterator[str]:
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(path)):
        if not link.startswith(("http://", "https://", "mailto:")):
            yield link


def test_every_relative_link_and_anchor_leads_somewhere() -> None:
    problems = [problem_of_link(path, link) for path in documents() for link in links(path)]
    assert [problem for problem in problems if problem] == []


def test_a_link_that_leads_nowhere_would_be_found() -> None:
    readme = REPOSITORY / "README.md"
    assert "no such file" in (problem_of_link(readme, "docs/nothing.md") or "")
    assert "no such heading" in (problem_of_link(readme, "docs/recovery.md#nothing") or "")
    assert problem_of_link(readme, "docs/recovery.md#automatic-recovery") is None


# ---- how they read


def prose(path: Path) -> Iterator[str]:
    """Paragraphs and list items; no code, tables, headings or pictures."""
    for block in re.split(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.) )", without_code(path)):
        lines = [line.strip() for line in block.splitlines() if not re.match(r"\s*(?:\||#|!\[)", line)]
        yield re.sub(r"^(?:[-*]|\d+\.) ", "", " ".join(lines))


def sentences(path: Path) -> list[str]:
    """Inline code counts as one word, a link as its text."""
    found = []
    for paragraph in prose(path):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", re.sub(r"`[^`]*`", "CODE", paragraph)).replace("*", "")
        found += [part for part in re.split(r"(?<=[.!?])\s+", plain) if words(part)]
    return found


def words(sentence: str) -> int:
    return sum(any(c.isalnum() for c in word) for word in sentence.split())


@pytest.mark.parametrize("name", [*READ_BY_USERS, *RECORDS])
def test_sentences_are_short(name: str) -> None:
    found = sentences(REPOSITORY / name)
    assert [sentence for sentence in found if words(sentence) > LONGEST_SENTENCE] == []
    assert sum(map(words, found)) / len(found) < MEAN_SENTENCE


def test_a_long_sentence_would_be_found(tmp_path: Path) -> None:
    path = tmp_path / "long.md"
    path.write_text("# Title\n\nShort. `a b c` is [one two](x.md) here.\n\n- " + "word " * 36 + "\n")
    assert [words(sentence) for sentence in sentences(path)] == [1, 5, 36]


def test_lines_fit_on_a_screen() -> None:
    long = [
        f"{name_of(path)}: {line[:60]}..."
        for path in documents()
        if path not in GENERATED
        for line in without_code(path).splitlines()
        if len(line) > LONGEST_LINE and not line.startswith("|")
    ]
    assert long == []


@pytest.mark.parametrize("name", ["README.md", "README.ru.md"])
def test_the_readme_stays_short(name: str) -> None:
    assert len((REPOSITORY / name).read_text(encoding="utf-8").splitlines()) <= README_LINES


# ---- two languages


def blocks_of_code(path: Path) -> list[str]:
    """Without comments and empty lines."""
    found = re.findall(r"^```\w*\n(.*?)^```", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [re.sub(r"\s*(?:#|  +[^\W\d_]).*$", "", block, flags=re.MULTILINE) for block in found]


@pytest.mark.parametrize("guide", TRANSLATED)
def test_both_languages_have_the_same_headings_and_commands(guide: str) -> None:
    english, russian = REPOSITORY / f"{guide}.md", REPOSITORY / f"{guide}.ru.md"
    levels = [re.findall(r"^(#+) ", without_code(path), flags=re.MULTILINE) for path in (english, russian)]
    assert levels[0] == levels[1]
    commands = [[shell_commands(block) for block in blocks_of_code(path)] for path in (english, russian)]
    assert commands[0] == commands[1]
    programs = [[code_of(block) for block in python_blocks(path)] for path in (english, russian)]
    assert programs[0] == programs[1]


def python_blocks(path: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def code_of(block: str) -> str:
    """Without comments."""
    return ast.unparse(ast.parse(block))


def shell_commands(block: str) -> list[str]:
    return [line for line in block.splitlines() if line.startswith(("python", "pip", "for", "git", "export", "mlflow"))]


# ---- commands


def called(path: Path) -> Iterator[str]:
    """Every `python ...` of a document, up to what the shell does next."""
    text = path.read_text(encoding="utf-8")
    blocks = re.findall(r"^```bash\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    inline = re.findall(r"`((?:[^`\n]|\n(?!\n))+)`", without_code(path))
    for code in [*"\n".join(blocks).splitlines(), *(text.replace("\n", " ") for text in inline)]:
        yield from re.findall(r"\bpython ((?:-m )?[\w./]+[^&|;#>]*)", code)


@cache
def described(script: str, verb: str = "") -> str:
    """What --help says of a command; of a program that takes long to start, its source."""
    if script.startswith(("benchmarks/", "tests/")):
        return (REPOSITORY / script).read_text(encoding="utf-8")
    arguments = script.split() if script.startswith("-m ") else [script]
    command = [sys.executable, *arguments, *([verb] if verb else []), "--help"]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout


def problems_of_command(line: str) -> list[str]:
    """Script or switches that don't exist, and settings that hparams.py refuses."""
    parts = shlex.split(line)
    script = f"-m {parts.pop(0) and parts.pop(0)}" if parts[0] == "-m" else parts.pop(0)
    if not script.startswith("-m ") and not (REPOSITORY / script).is_file():
        return [f"{script}: no such file"]
    verb = parts[0] if script == "prepare_data.py" and parts and not parts[0].startswith("-") else ""
    known = described(script, verb) + (described("train.py") if script == "multiproc.py" else "")
    switches = [with_dashes([part.partition("=")[0]])[0] for part in parts if part.startswith("--")]
    found = [f"{script}: {switch}" for switch in switches if not re.search(rf"{switch}(?![\w-])", known)]
    given = [value for name, value in zip(parts, parts[1:], strict=False) if name == "--hparams"]
    for settings in (text for text in given if not re.search(r"\$|\.\.\.|=[A-Z]\b", text)):  # no placeholders
        resolve_hparams(overrides=settings)
    return found


@pytest.mark.parametrize("name", [name_of(p) for p in documents() if p not in GENERATED and p.stem != "CHANGELOG"])
def test_commands_and_switches_in_documents_exist(name: str) -> None:
    assert [problem for line in called(REPOSITORY / name) for problem in problems_of_command(line)] == []


def test_a_command_that_does_not_exist_would_be_found() -> None:
    assert problems_of_command("nothing.py -o output") == ["nothing.py: no such file"]
    assert problems_of_command("train.py --no-such-switch --max_steps 3") == ["train.py: --no-such-switch"]
    assert problems_of_command("prepare_data.py check a.csv --seed 3") == ["prepare_data.py: --seed"]
    with pytest.raises(Exception, match="batch_sise"):
        problems_of_command('train.py --hparams "batch_sise=3"')


@pytest.mark.parametrize("name", ["README.md", "README.ru.md"])
def test_the_readme_keeps_its_two_first_commands(name: str) -> None:
    text = (REPOSITORY / name).read_text(encoding="utf-8")
    assert "\npip install -r requirements.txt && python train.py --preset demo -o output -l logs\n" in text
    listener = "pip install --no-deps -r requirements-listen.txt"
    assert f"\npip install -r requirements-dev.txt && {listener} && pytest\n" in text
