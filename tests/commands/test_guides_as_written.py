"""Every block of shell in the README and the guides is typed as it is written; trainings take two steps.

The README and the quick start belong to the tier `spec`, the other guides to `slow`.
"""

import re
import shutil
from pathlib import Path

import pytest

from support.guides import Block, Reader, blocks_of, without

FIRST = ("README.md", "docs/quickstart.md")
GUIDES = (
    "docs/your_own_voice.md", "docs/preparing_data.md", "docs/speaking.md", "docs/judging_a_voice.md",
    "docs/tuning.md", "docs/troubleshooting.md", "docs/recovery.md", "docs/gpu_and_several_machines.md",
    "docs/monitoring.md", "docs/python_api.md", "docs/parameters.md", "docs/languages.md",
)  # fmt: skip
# What is not typed here, and where it is tried instead.
SKIPPED = {
    r"\bserve\.py|\bcurl ": "tests/commands/test_serve.py: waits for visitors",
    r"^mlflow ui|^tensorboard ": "tests/monitoring: other projects' programs, which wait for visitors",
    r"--nnodes 2": "tests/parallel/test_rendezvous.py: two machines",
    r"postgresql://": "tests/smart_tuner: a real server",
    r"tacotron2_statedict\.pt": "tests/commands/test_spec_speech.py: 110 MB of NVIDIA's weights",
    r"^pip install \.": "tests/test_packaging.py: reaches the network",
    r"^python benchmarks/": "draws checkpoints of 300 steps",
}
SKIP = re.compile("|".join(SKIPPED))
HAVE_A_VOICE = {"docs/speaking.md": ("output", "older_run"), "docs/judging_a_voice.md": ("output", "older"),
                "docs/recovery.md": ("output",), "docs/monitoring.md": ("output",)}  # fmt: skip


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reader]:
    """A reader of each guide, who keeps what its earlier blocks left. Their cache is no other test's."""
    return Readers(tmp_path_factory, tmp_path_factory.mktemp("readers-cache"))


class Readers(dict[str, Reader]):
    def __init__(self, tmp_path_factory: pytest.TempPathFactory, cache: Path) -> None:
        super().__init__()
        self._folders, self._cache = tmp_path_factory, cache

    def __missing__(self, guide: str) -> Reader:
        reader = Reader(self._folders.mktemp("reader"), self._cache)
        reader.has_trained(*HAVE_A_VOICE.get(guide, ()))
        self[guide] = reader
        return reader


def as_described(reader: Reader, block: Block) -> None:
    """What the guide says that its reader has before this block."""
    for voice in re.findall(r"train\.py.* -o (\w+)", block.text):
        shutil.rmtree(reader.folder / voice, ignore_errors=True)  # sections tell of different voices of one name
    if "--preset demo" in block.text:
        shutil.rmtree(reader.folder / "data", ignore_errors=True)  # so the demo voice it is
    elif re.search(r"language[ =]ru", block.text):
        reader.records("ru")
    elif "--speaker" in block.text:
        reader.records("en", speaker="anna")
        if "train.py" not in block.text:
            reader.has_trained("my_voice")
    else:
        reader.records("en", lists="import data/dataset" not in block.text)
    if "--evaluation judged" in block.text:
        assert reader.types("python evaluate.py -c output -o judged").returncode == 0
    if block.guide == "docs/troubleshooting.md" and block.n == 1:
        reader.has_trained("output")


@pytest.mark.parametrize(
    "block",
    [
        *(pytest.param(block, marks=pytest.mark.spec) for guide in FIRST for block in blocks_of(guide)),
        *(pytest.param(block, marks=pytest.mark.slow) for guide in GUIDES for block in blocks_of(guide)),
    ],
    ids=str,
)
def test_what_a_guide_says_works_as_it_is_written(block: Block, readers: dict[str, Reader]) -> None:
    reader = readers[block.guide]
    as_described(reader, block)
    done = reader.types(without(block.text, SKIP))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_nothing_is_skipped_that_no_guide_says() -> None:
    lines = [line for guide in (*FIRST, *GUIDES) for block in blocks_of(guide) for line in block.text.splitlines()]
    assert [pattern for pattern in SKIPPED if not any(re.search(pattern, line) for line in lines)] == []
