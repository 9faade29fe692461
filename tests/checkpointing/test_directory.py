"""Whatever a power cut may leave of a save, the checkpoint that was told as saved is there and whole."""

import os
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import pytest

from checkpointing import checkpoint_file
from checkpointing import directory as checkpoint_dir
from support.checkpoints import made, writer_of

Content = bytes | None  # of a name: None if there is no such file
CALLS = ("fsync", "replace", "rename", "unlink")


class Disk:
    """What a folder may hold after a power cut, by what POSIX promises and no more.

    A name may lead to any of the files that it led to since the folder was last synced, each name for itself; a file
    holds what was in it when it was last synced, and one that never was holds nothing, a half, or all of it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.possible: dict[str, set[Content]] = {}
        self._synced: set[int] = set()  # inodes

    def after(self, call: str, argument: object) -> None:
        """The system call has been done."""
        is_of_folder = False
        if call == "fsync":
            status = os.fstat(int(str(argument)))
            self._synced.add(status.st_ino)
            is_of_folder = status.st_ino == self.folder.stat().st_ino
        found = {path.name: path for path in self.folder.iterdir() if not path.name.startswith(".")}
        self._synced &= {path.stat().st_ino for path in self.folder.iterdir()}
        for name in found.keys() | self.possible.keys():
            now = self._contents(found[name]) if name in found else {None}
            self.possible[name] = now if is_of_folder else now | self.possible.get(name, {None})

    def _contents(self, path: Path) -> set[Content]:
        content = path.read_bytes()
        if path.stat().st_ino in self._synced:
            return {content}
        return {b"", content[: len(content) // 2], content}

    def states(self) -> Iterator[dict[str, Content]]:
        names = sorted(self.possible)
        for contents in product(*(self.possible[name] for name in names)):
            yield dict(zip(names, contents, strict=True))


class PowerCuts:
    """Follows the system calls on a folder; after each, every state that a power cut may leave is made and checked."""

    def __init__(self, folder: Path, rebuilt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.disk, self.rebuilt = Disk(folder), rebuilt
        self.told = 0  # the step of the newest checkpoint that was told as saved
        self.n_points = self.n_states = 0
        self._seen: set[tuple[int, tuple[tuple[str, Content], ...]]] = set()
        for directory in (folder, rebuilt):
            directory.mkdir()
        for call in CALLS:
            monkeypatch.setattr(os, call, self._followed(call, getattr(os, call)))

    def _followed(self, call: str, original: Callable[..., object]) -> Callable[..., object]:
        def wrapper(*arguments: object, **more: object) -> object:
            result = original(*arguments, **more)
            if self.rebuilt not in Path(str(arguments[0])).parents:
                self.disk.after(call, arguments[0])
                self._look()
            return result

        return wrapper

    def _look(self) -> None:
        self.n_points += 1
        for state in self.disk.states():
            key = self.told, tuple(sorted(state.items()))
            if key not in self._seen:
                self._seen.add(key)
                self.n_states += 1
                self._check(state)

    def _check(self, state: dict[str, Content]) -> None:
        for path in self.rebuilt.iterdir():
            path.unlink()
        for name, content in state.items():
            if content is not None:
                (self.rebuilt / name).write_bytes(content)
        newest = checkpoint_dir.newest_good(self.rebuilt)
        step = 0 if newest is None else checkpoint_file.load(newest).step
        assert step >= self.told, f"step {self.told} was told as saved, and of {sorted(state)} step {step} is whole"


@pytest.fixture
def cuts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PowerCuts:
    return PowerCuts(tmp_path / "saved", tmp_path / "rebuilt", monkeypatch)


def test_no_power_cut_costs_a_checkpoint_that_was_told_as_saved(cuts: PowerCuts) -> None:
    writer = writer_of(cuts.disk.folder, keep_last=2)
    # a step may be saved twice: the last one again, after its validation
    for step, value in ((5, 0.0), (10, 0.0), (15, 0.0), (15, 1.0), (20, 0.0)):
        writer.start(made(step, value=value), is_best=True)
        done = writer.collect(wait=True)
        assert done is not None and not done.problem
        cuts.told = step
    assert cuts.n_points > 50 and cuts.n_states > 100
