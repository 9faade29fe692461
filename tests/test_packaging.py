"""pyproject.toml against the tree and the requirement files, and a wheel that is installed and used."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from support.paths import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]
OPTIONAL = {"mlflow", "python-telegram-bot", "tenacity"}  # requirements.txt brings them, the package as extras
NOT_PACKAGED = {"tests", "benchmarks", "docs", "build"}


def pins(name: str) -> dict[str, str]:
    lines = (REPOSITORY / name).read_text(encoding="utf-8").splitlines()
    found = [re.match(r"([A-Za-z0-9_.-]+)==([^\s#]+)", line) for line in lines]
    return {match[1]: match[2] for match in found if match}


def ranges(lines: list[str]) -> dict[str, Requirement]:
    return {requirement.name: requirement for requirement in map(Requirement, lines)}


CORE = ranges(PROJECT["project"]["dependencies"] + EXTRAS["mlflow"] + EXTRAS["telegram"])
FILES = {"requirements.txt": CORE} | {
    f"requirements-{name}.txt": ranges(EXTRAS[name])
    for name in ("phonemes", "eval", "vocoder", "export", "demo", "postgresql")
}


@pytest.mark.parametrize("name", FILES)
def test_what_is_pinned_lies_in_the_ranges_of_the_package(name: str) -> None:
    pinned = pins(name)
    assert set(pinned) == set(FILES[name])
    outside = [f"{n}=={v}" for n, v in pinned.items() if not FILES[name][n].specifier.contains(v, prereleases=True)]
    assert outside == []


def test_the_packages_optional_parts_are_no_part_of_its_core() -> None:
    core = ranges(PROJECT["project"]["dependencies"])
    assert not OPTIONAL & set(core) and set(core) | OPTIONAL == set(pins("requirements.txt"))


def test_the_players_file_pins_what_the_others_pin() -> None:
    all_pins = pins("requirements.txt") | pins("requirements-export.txt")
    assert {name: all_pins.get(name) for name in pins("requirements-player.txt")} == pins("requirements-player.txt")


def repository_files() -> list[Path]:
    """What of the repository goes into a package, tracked and new files alike."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout: what belongs to the repository is not known")
    paths = [Path(line) for line in listed.stdout.splitlines()]
    packaged = [path for path in paths if path.parts[0] not in NOT_PACKAGED and path.parts[0][0] != "."]
    return [path for path in packaged if (REPOSITORY / path).is_file()]


def test_every_folder_of_modules_and_every_data_file_is_packaged() -> None:
    ours = [path for path in repository_files() if len(path.parts) > 1]
    folders = {".".join(path.parent.parts) for path in ours if path.suffix == ".py"} - {"tacotron2_trainer"}
    flat = {name.removeprefix("tacotron2_trainer.flat.") for name in PROJECT["tool"]["setuptools"]["packages"][2:]}
    assert flat == folders, "add new folders to packages in pyproject.toml"
    patterns = PROJECT["tool"]["setuptools"]["package-data"]
    known = {
        file.relative_to(REPOSITORY)
        for package, globs in patterns.items()
        for pattern in globs
        for file in REPOSITORY.joinpath(*package.split(".")[2:]).glob(pattern)
    }
    assert {path for path in ours if path.suffix != ".py"} - known == set(), "add new data to package-data"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's content in a folder, as pip unpacks it. Needs no network: setuptools is installed here."""
    pytest.importorskip("setuptools")
    folder = tmp_path_factory.mktemp("wheel")
    sources = folder / "sources"
    for path in repository_files():
        (sources / path).parent.mkdir(parents=True, exist_ok=True)
        (sources / path).write_bytes((REPOSITORY / path).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder), "."]
    subprocess.run(command, cwd=sources, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(folder / "site")
    return folder / "site"


def run(installed: Path, code: str) -> str:
    path = f"import sys; sys.path.insert(0, {str(installed)!r})\n"
    done = subprocess.run(
        [sys.executable, "-c", path + code], cwd=installed.parent, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.spec
def test_the_installed_package_finds_its_own_modules_and_data(installed: Path) -> None:
    code = (
        "from tacotron2_trainer import Tacotron2, create_hparams, Voice, OnnxVoice, load_corpus\n"
        "import hparams; print(hparams.__file__); print(Voice.__module__, create_hparams().n_mel_channels)\n"
        "from text.front_end import FrontEnd; print(len(FrontEnd.create().symbol_ids('hello')) > 4)"
    )
    place, voice, reads = run(installed, code).splitlines()
    assert place == str(installed / "tacotron2_trainer/flat/hparams.py")
    assert (voice, reads) == ("speech.voice 80", "True")
    top = {path.name for path in installed.iterdir()} - {"tacotron2_trainer"}
    assert all(name.endswith(".dist-info") for name in top), "nothing of a common name in site-packages"


@pytest.mark.spec
@pytest.mark.parametrize("name", sorted(PROJECT["project"]["scripts"]))
def test_every_console_command_of_the_package_starts(installed: Path, name: str) -> None:
    module, function = PROJECT["project"]["scripts"][name].split(":")
    code = f"sys.argv = [{name!r}, '--help']\nfrom {module} import {function}\n{function}()"
    shown = run(installed, code)
    assert shown.startswith("usage: ") and "{" not in shown.splitlines()[0]
