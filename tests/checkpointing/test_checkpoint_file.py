"""Checkpoints survive crashes, full disks, flipped bits and hostile files."""

import json
import logging
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from checkpointing import checkpoint_file
from checkpointing import directory as checkpoint_dir
from checkpointing import weights as checkpoint_weights
from checkpointing.checkpoint_file import Checkpoint
from common.errors import NothingToRecover, UserError
from support.checkpoints import SYMBOLS, VOICE, made
from support.limits import disk_that_takes


def save_all(directory: Path, *steps: int) -> None:
    for step in steps:
        checkpoint_dir.save(made(step), directory)


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


class Crash(BaseException):
    """Stands for the process ending at this very call."""


def crash_at(monkeypatch: pytest.MonkeyPatch, target: str, nth: int, error: type[BaseException]) -> None:
    """The nth call of `target` raises."""
    module, name = target.split(".")
    owner: Any = {"os": os, "torch": torch}[module]
    real, calls = getattr(owner, name), iter(range(1, 100))

    def stub(*args: Any, **more: Any) -> Any:
        if next(calls) == nth:
            raise error("injected")
        return real(*args, **more)

    monkeypatch.setattr(target, stub)


# ---- saving

CALLS = (("torch.save", 1), ("os.fsync", 5), ("os.replace", 3))  # that often in one save
CRASHES = [(target, nth) for target, n in CALLS for nth in range(1, n + 1)]


def test_the_crash_table_names_every_call_of_a_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for target, n in CALLS:
        crash_at(monkeypatch, target, n + 1, Crash)
    save_all(tmp_path, 1)
    for target, nth in CRASHES:
        with monkeypatch.context() as patch, pytest.raises(Crash):
            crash_at(patch, target, nth, Crash)
            save_all(tmp_path, 2)


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt, Crash])
@pytest.mark.parametrize(("target", "nth"), CRASHES)
def test_a_crash_anywhere_in_a_save_leaves_the_older_checkpoint_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, nth: int, error: type[BaseException]
) -> None:
    save_all(tmp_path, 1)
    before = checkpoint_dir.checkpoint_path(tmp_path, 1).read_bytes()
    with monkeypatch.context() as patch, pytest.raises(error):
        crash_at(patch, target, nth, error)
        checkpoint_dir.save(made(2), tmp_path)
    assert checkpoint_dir.checkpoint_path(tmp_path, 1).read_bytes() == before
    pointed, newest = checkpoint_dir.pointed(tmp_path, "last"), checkpoint_dir.newest_good(tmp_path)
    assert pointed is not None and checkpoint_file.problem_of(pointed) is None
    assert newest is not None and checkpoint_file.load(newest).step in (1, 2)
    assert not list(tmp_path.glob(".*.tmp"))


@pytest.mark.parametrize(("target", "nth"), CRASHES)
def test_a_crash_while_saving_the_same_step_again_leaves_it_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, nth: int
) -> None:
    checkpoint_dir.save(made(1, value=1.0), tmp_path)
    with monkeypatch.context() as patch, pytest.raises(Crash):
        crash_at(patch, target, nth, Crash)
        checkpoint_dir.save(made(1, value=2.0), tmp_path)
    newest = checkpoint_dir.newest_good(tmp_path)
    assert newest is not None and float(checkpoint_file.load(newest).model["w"][0]) in (1.0, 2.0)


@pytest.mark.parametrize("n", [30_000, 1_000_000])
def test_a_disk_that_takes_no_more_is_an_oserror(tmp_path: Path, n: int) -> None:
    save_all(tmp_path, 1)
    with pytest.raises(OSError, match="too large"), disk_that_takes(20_000):
        checkpoint_dir.save(made(2, n=n), tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last.json", "step_00000001.json", "step_00000001.pt"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_never_written(tmp_path: Path, value: float) -> None:
    with pytest.raises(AssertionError, match="non-finite"):
        checkpoint_dir.save(made(1, value=value), tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    loaded = checkpoint_file.load(checkpoint_dir.save(made(7, value=0.5), tmp_path))
    assert (loaded.step, loaded.training) == (7, {"progress": {"step": 7}})
    assert torch.equal(loaded.model["w"], torch.full((64,), 0.5))
    assert tuple(loaded.voice.symbols) == SYMBOLS and loaded.voice.mel_std == 2.0


# ---- finding a good one


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip_a_byte, "differs from its manifest's sha256"),
        (truncate, "bytes, its manifest says"),
        (lambda path: path.with_suffix(".json").unlink(), "has no manifest"),
        (lambda path: path.with_suffix(".json").write_bytes(b"\xff\x00"), "unreadable manifest"),
    ],
)
def test_a_damaged_checkpoint_is_passed_over_for_the_next_older(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None], message: str
) -> None:
    save_all(tmp_path, 1, 2, 3)
    damage(checkpoint_dir.checkpoint_path(tmp_path, 3))
    with caplog.at_level(logging.WARNING, "tacotron2"):
        assert checkpoint_dir.newest_good(tmp_path) == checkpoint_dir.checkpoint_path(tmp_path, 2)
    assert message in caplog.text and "step_00000003.pt" in caplog.text
    assert checkpoint_dir.checkpoint_path(tmp_path, 3).exists()


def test_loading_a_damaged_checkpoint_by_name_is_refused(tmp_path: Path) -> None:
    save_all(tmp_path, 1)
    flip_a_byte(checkpoint_dir.checkpoint_path(tmp_path, 1))
    with pytest.raises(UserError, match="it is damaged; use an older one"):
        checkpoint_file.load(checkpoint_dir.checkpoint_path(tmp_path, 1))


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"file": "step_00000009.pt"}', b'{"file": ""}'])
def test_a_damaged_pointer_points_nowhere(tmp_path: Path, content: bytes) -> None:
    save_all(tmp_path, 1)
    (tmp_path / "last.json").write_bytes(content)
    assert checkpoint_dir.pointed(tmp_path, "last") is None


def test_a_run_resolves_to_its_best_else_its_last_good_checkpoint(tmp_path: Path) -> None:
    directory = tmp_path / "checkpoints"
    save_all(directory, 1, 2, 3)
    assert checkpoint_dir.resolve(tmp_path).name == "step_00000003.pt"
    checkpoint_dir.point(directory, "best", checkpoint_dir.checkpoint_path(directory, 1))
    assert checkpoint_dir.resolve(tmp_path).name == checkpoint_dir.resolve(directory).name == "step_00000001.pt"
    flip_a_byte(checkpoint_dir.checkpoint_path(directory, 1))
    assert checkpoint_dir.resolve(tmp_path).name == "step_00000003.pt"
    named = checkpoint_dir.checkpoint_path(directory, 2)
    assert checkpoint_dir.resolve(named) == named
    with pytest.raises(UserError, match="no such checkpoint"):
        checkpoint_dir.resolve(tmp_path / "other.pt")


def test_a_run_without_a_usable_checkpoint_is_nothing_to_recover(tmp_path: Path) -> None:
    with pytest.raises(NothingToRecover, match="no usable checkpoint") as caught:
        checkpoint_dir.resolve(tmp_path)
    assert caught.value.exit_code == 5
    save_all(tmp_path / "checkpoints", 1)
    truncate(checkpoint_dir.checkpoint_path(tmp_path / "checkpoints", 1))
    with pytest.raises(NothingToRecover):
        checkpoint_dir.resolve(tmp_path)


# ---- pruning


def kept_steps(directory: Path) -> list[int]:
    return sorted(int(p.stem[5:]) for p in checkpoint_dir.all_checkpoints(directory))


@pytest.mark.parametrize(
    ("keep_last", "milestone_every", "kept"),
    [(0, 0, [2, 6, 7]), (2, 0, [2, 6, 7]), (3, 0, [2, 5, 6, 7]), (2, 3, [2, 3, 6, 7]), (9, 0, [1, 2, 3, 4, 5, 6, 7])],
)
def test_pruning_keeps_the_last_two_the_best_and_milestones(
    tmp_path: Path, keep_last: int, milestone_every: int, kept: list[int]
) -> None:
    save_all(tmp_path, *range(1, 8))
    checkpoint_dir.point(tmp_path, "best", checkpoint_dir.checkpoint_path(tmp_path, 2))
    gone = checkpoint_dir.prune(tmp_path, keep_last=keep_last, milestone_every=milestone_every)
    assert kept_steps(tmp_path) == kept and len(gone) == 7 - len(kept)
    assert sorted(p.stem for p in tmp_path.glob("step_*.json")) == [f"step_{step:08d}" for step in kept]


def test_pruning_removes_what_a_killed_save_left_behind(tmp_path: Path) -> None:
    save_all(tmp_path, 1)
    (tmp_path / ".step_00000002.pt.x7.tmp").write_bytes(b"half")
    checkpoint_dir.prune(tmp_path, keep_last=2, milestone_every=0)
    assert kept_steps(tmp_path) == [1] and not list(tmp_path.glob(".*.tmp"))


# ---- foreign files


class Hostile:
    """Unpickling it would create a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("plain_pickle", [False, True])
def test_a_file_that_would_run_code_is_refused_and_not_run(tmp_path: Path, plain_pickle: bool) -> None:
    target, path = tmp_path / "executed", tmp_path / "hostile.pt"
    if plain_pickle:
        path.write_bytes(pickle.dumps({"model": Hostile(target)}, protocol=2))
    else:
        torch.save({"model": Hostile(target)}, path)
    with pytest.raises(UserError, match="could run foreign code"):
        checkpoint_file.read(path)
    assert not target.exists()


@pytest.mark.parametrize("content", [b"", b".", b"hello world\n", b"PK\x03\x04" + bytes(90), bytes(200), b"\x80\x02}"])
def test_a_file_that_is_no_checkpoint_is_a_user_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.pt"):
        checkpoint_file.read(tmp_path / "x.pt")


def test_any_flipped_byte_is_read_or_refused_but_never_a_crash(tmp_path: Path) -> None:
    path = checkpoint_dir.save(made(1), tmp_path)
    content = path.read_bytes()
    for position in range(0, len(content), 29):
        damaged = bytearray(content)
        damaged[position] ^= 0x55
        (tmp_path / "x.pt").write_bytes(damaged)
        try:
            checkpoint_file.read(tmp_path / "x.pt")
        except UserError as error:
            assert "x.pt" in str(error)


def test_a_missing_file_and_other_contents_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such checkpoint"):
        checkpoint_file.load(tmp_path / "none.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(UserError, match="holds a list, not a checkpoint"):
        checkpoint_file.load(tmp_path / "list.pt")
    torch.save({"format": 99}, tmp_path / "new.pt")
    with pytest.raises(UserError, match=r"format 99, not 1"):
        checkpoint_file.load(tmp_path / "new.pt")


@pytest.mark.parametrize("wrap", [lambda w: w, lambda w: {"model": w}, lambda w: {"state_dict": w, "iteration": 5}])
@pytest.mark.parametrize("prefix", ["", "module.", "module.1."])
def test_weights_are_found_in_every_known_layout(wrap: Callable[[dict], dict], prefix: str) -> None:
    found = checkpoint_weights.weights_of(wrap({f"{prefix}decoder.w": torch.ones(2)}))
    assert list(found) == ["decoder.w"]


# ---- taking weights over


class Small(nn.Module):
    def __init__(self, n_symbols: int = 4) -> None:
        super().__init__()
        self.embedding = nn.Embedding(n_symbols, 3)
        self.linear = nn.Linear(3, 2)
        self.gate = nn.Linear(3, 1)


def content_of(model: nn.Module, symbols: tuple[str, ...] = SYMBOLS) -> dict[str, Any]:
    return {"model": model.state_dict(), "voice": {"symbols": list(symbols)}}


def test_a_warm_start_says_what_became_of_every_tensor() -> None:
    ours, theirs = Small(), Small()
    before = ours.gate.bias.clone()
    weights = {k: v.clone() for k, v in theirs.state_dict().items() if k != "gate.bias"}
    weights |= {"gate.weight": torch.ones(5, 3), "postnet.w": torch.ones(1)}
    done = checkpoint_weights.warm_start(ours, weights, ignore=["linear.bias"], symbols=SYMBOLS)
    assert done == checkpoint_weights.WarmStart(
        loaded=["embedding.weight", "linear.weight"],
        ignored=["linear.bias"],
        missing=["gate.bias"],
        reshaped=["gate.weight"],
        unknown=["postnet.w"],
    )
    assert "2 tensors loaded; 1 ignored (linear.bias); 1 missing (gate.bias)" in str(done)
    assert torch.equal(ours.linear.weight, theirs.linear.weight) and torch.equal(ours.gate.bias, before)


@pytest.mark.parametrize("ignore", [[], ["embedding.weight"]])
@pytest.mark.parametrize("their_symbols", [("c", "b", "a", "_"), ("x", "_", "b", "y", "a")])
def test_embedding_rows_come_over_by_symbol(ignore: list[str], their_symbols: tuple[str, ...]) -> None:
    ours, theirs = Small(), Small(len(their_symbols))
    before = ours.embedding.weight.detach().clone()
    done = checkpoint_weights.warm_start(ours, content_of(theirs, their_symbols), ignore=ignore, symbols=SYMBOLS)
    for i, symbol in enumerate(SYMBOLS):
        known = symbol in their_symbols
        expected = theirs.embedding.weight[their_symbols.index(symbol)] if known else before[i]
        assert torch.equal(ours.embedding.weight[i], expected), symbol
    assert done.embedding_rows == len(set(SYMBOLS) & set(their_symbols))
    assert f"{done.embedding_rows} embedding rows copied by symbol" in str(done)


def test_a_stripped_checkpoint_loads_without_training_state(tmp_path: Path) -> None:
    stripped = Checkpoint(3, {"w": torch.ones(2)}, VOICE, None)
    assert checkpoint_file.load(checkpoint_dir.save(stripped, tmp_path)).training is None


def test_a_checkpoint_may_be_moved_without_its_manifest(tmp_path: Path) -> None:
    path = checkpoint_dir.save(made(3), tmp_path / "run")
    shutil.copy(path, tmp_path / "voice.pt")
    assert checkpoint_file.load(tmp_path / "voice.pt").step == 3


def test_loading_exactly_names_everything_that_does_not_fit(tmp_path: Path) -> None:
    weights = {k: v for k, v in Small().state_dict().items() if k != "gate.bias"}
    weights |= {"gate.weight": torch.ones(5, 3), "postnet.w": torch.ones(1)}
    with pytest.raises(UserError, match="does not fit this model in 3 places") as caught:
        checkpoint_weights.load_exactly(Small(), weights, path=tmp_path / "x.pt")
    for part in ("missing: gate.bias", "not in this model: postnet.w", r"gate.weight is (5, 3) there", "--warm-start"):
        assert part in str(caught.value)


def test_the_manifest_and_pointers_are_plain_json(tmp_path: Path) -> None:
    path = checkpoint_dir.save(made(4), tmp_path)
    manifest = json.loads(path.with_suffix(".json").read_text())
    assert manifest == {"sha256": checkpoint_file.sha256_of(path), "bytes": path.stat().st_size}
    checkpoint_dir.point(tmp_path, "best", path)
    assert json.loads((tmp_path / "best.json").read_text()) == {"file": path.name}
