"""Files that appear whole or not at all, and commands on a disk that refuses: one message, no traceback."""

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import evaluate
import synthesize
from checkpointing import checkpoint_file, exported_voice
from checkpointing import directory as checkpoint_dir
from checkpointing.checkpoint_file import Checkpoint
from common.errors import UserError
from common.files import atomic_file, check_place, explain_write_errors, read_given_text, write_atomic
from corpus.list_checks import Places, check_list
from data_utils import load_corpus
from hparams import HParams, resolve_hparams
from model import Tacotron2
from support.limits import disk_that_takes
from support.paths import REPOSITORY
from text.pronunciations import read_pronunciations
from text.symbol_sets import read_symbols
from training.voice_info import voice_info_of


@pytest.mark.parametrize("content", ["new: \u0434\u0430", b"\x00\xff"])
def test_text_and_bytes_arrive_with_missing_folders(tmp_path: Path, content: str | bytes) -> None:
    path = tmp_path / "a/b/c"
    write_atomic(path, content)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert list(path.parent.iterdir()) == [path]


def test_others_may_read_it_as_any_file_of_the_user(tmp_path: Path) -> None:
    old = os.umask(0o022)
    try:
        write_atomic(tmp_path / "a", "x")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o644


def test_a_disk_that_is_full_keeps_the_old_content_and_leaves_nothing(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a.json", "old")
    with pytest.raises(OSError, match="too large"), disk_that_takes(1000):
        write_atomic(tmp_path / "a.json", "new" * 1000)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.json", "old")]


def test_a_device_is_written_to_and_never_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    def replaced(*_: object) -> None:
        raise AssertionError("no program could write to /dev/null any more")

    monkeypatch.setattr(os, "replace", replaced)
    for path in map(Path, ("/dev/null", "/dev/stdout")):
        check_place(path)
    write_atomic(Path("/dev/null"), "content")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_a_named_pipe_is_refused_and_stays(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for write in (check_place, lambda path: write_atomic(path, "content")):
        with pytest.raises(OSError, match="it is a pipe, and no file"):
            write(tmp_path / "pipe")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_errors_name_what_was_asked_for_and_not_a_temporary_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "folder", Path("/proc/x.json")):
        for write in (check_place, lambda path: write_atomic(path, "content")):
            with pytest.raises(OSError) as caught:
                write(path)
            assert caught.value.filename in (str(path), str(path.parent))
    with (
        pytest.raises(UserError, match="file is a file where a folder should be"),
        explain_write_errors("x", next_step="look"),
    ):
        check_place(tmp_path / "file" / "a")


def test_a_name_as_long_as_the_disk_allows_is_written(tmp_path: Path) -> None:
    path = tmp_path / ("\u0436" * 125 + ".json")  # 255 bytes
    check_place(path)
    write_atomic(path, "content")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("call", ["os.fsync", "os.replace"])
def test_a_kill_between_the_calls_keeps_the_old_content_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    write_atomic(tmp_path / "a.json", "old")
    monkeypatch.setattr(call, interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "a.json", "new")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.json", "old")]


def test_a_writer_that_raises_keeps_the_old_content(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a", "old")
    with pytest.raises(ValueError, match="half"), atomic_file(tmp_path / "a") as file:
        file.write(b"new")
        raise ValueError("half")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a", "old")]


def test_the_old_content_is_read_until_the_end(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a", "old")
    with atomic_file(tmp_path / "a") as file:
        file.write(b"new")
        file.flush()
        assert (tmp_path / "a").read_text() == "old"
    assert (tmp_path / "a").read_text() == "new"


@pytest.mark.parametrize(
    ("error", "reason"), [(OSError(errno.ENOSPC, "No space left on device"), "No space left"), (OSError("odd"), "odd")]
)
def test_a_refusal_says_what_why_and_what_next(error: OSError, reason: str) -> None:
    message = rf"cannot write -o x \({reason}.*\); free space"
    with pytest.raises(UserError, match=message), explain_write_errors("-o x", next_step="free space"):
        raise error


# ---- commands


@pytest.fixture
def voice(tiny: Callable[..., HParams], tmp_path: Path) -> Path:
    hp = tiny()
    torch.manual_seed(1)
    saved = Checkpoint(1, Tacotron2(hp).state_dict(), voice_info_of(hp, load_corpus(hp)), None)
    return checkpoint_dir.save(saved, tmp_path / "run")


@pytest.fixture
def no_folder(tmp_path: Path) -> Path:
    """A file where a folder is wanted: what a read-only place is to everybody but root."""
    path = tmp_path / "occupied"
    path.write_text("a file")
    return path


def only_message(capsys: pytest.CaptureFixture[str]) -> str:
    lines = [line for line in capsys.readouterr().err.splitlines() if "eta=" not in line]
    assert len(lines) == 1, lines
    return lines[0]


def test_synthesize_into_a_place_that_is_no_folder_is_one_message(
    voice: Path, no_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert synthesize.main(["hi", "-c", str(voice), "-o", str(no_folder / "a.wav")]) == 2
    assert only_message(capsys).startswith(f"error: cannot write -o {no_folder}/a.wav (")


@pytest.mark.parametrize("more", [[], ["--no-pictures"]])
def test_synthesize_onto_a_full_disk_is_one_message_and_leaves_no_half_file(
    voice: Path, tmp_path: Path, more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "out"
    with disk_that_takes(500):
        assert synthesize.main(["hi", "-c", str(voice), "-o", str(target / "a.wav"), *more]) == 2
    assert "File too large); free space there, or name another place" in only_message(capsys)
    assert list(target.iterdir()) == []


def test_evaluate_into_a_place_that_is_no_folder_is_refused_before_it_speaks(
    voice: Path, no_folder: Path, corpus_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["-c", str(voice), "--filelist", str(corpus_folder / "val.txt")]
    assert evaluate.main([*where, "-o", str(no_folder)]) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith(f"error: cannot write -o {no_folder} (") and "speaking" not in shown.err
    assert shown.out == ""


@pytest.mark.slow
def test_evaluate_onto_a_full_disk_is_one_message(voice: Path, tmp_path: Path, corpus_folder: Path) -> None:
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (500, -1)); import evaluate; "
        "sys.exit(evaluate.main(sys.argv[1:]))"
    )
    arguments = ["-c", str(voice), "--filelist", str(corpus_folder / "val.txt"), "-o", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"error: cannot write -o {tmp_path}/out (File too large)" in done.stderr


def test_evaluate_shows_its_table_though_the_last_file_does_not_fit(
    voice: Path, tmp_path: Path, corpus_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out/evaluation.json").mkdir(parents=True)  # a folder where the file is wanted
    where = ["-c", str(voice), "--filelist", str(corpus_folder / "val.txt"), "-n", "1"]
    assert evaluate.main([*where, "-o", str(tmp_path / "out")]) == 2
    shown = capsys.readouterr()
    assert "mel_distance" in shown.out and f"error: cannot write -o {tmp_path}/out (" in shown.err


# ---- what a user names and nobody ends


READERS: dict[str, Callable[[Path], object]] = {
    "settings": lambda path: resolve_hparams(hparams_file=path),
    "filelist": lambda path: check_list(path, Places.of(path, dataset_path=path.parent)),
    "checkpoint": checkpoint_file.read,
    "exported voice": exported_voice.read_voice,
    "pronunciations": read_pronunciations,
    "symbols": read_symbols,
}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_pipe_that_nobody_writes_is_refused_and_not_waited_for(
    tmp_path: Path, read: Callable[[Path], object], kind: str
) -> None:
    path = tmp_path / "given"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(UserError, match="a pipe or a device, and no file"):
        read(path)


def test_what_a_shell_passes_on_is_read() -> None:
    reading, writing = os.pipe()
    try:
        os.write(writing, b"\xef\xbb\xbfbatch_size: 4\r\n")
        os.close(writing)
        assert read_given_text(Path(f"/dev/fd/{reading}")) == "batch_size: 4\n"
    finally:
        os.close(reading)
