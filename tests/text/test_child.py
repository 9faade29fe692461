"""Helper processes: they end with their parent, get none of our secrets, and their faults become one message."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import text.child
from common.errors import UserError
from support.paths import REPOSITORY
from text.child import Child, Children, check_installed
from text.front_end import FrontEnd


def children_of_process(pid: int) -> set[int]:
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # gone meanwhile
                continue
            if int(fields[1]) == pid:
                found.add(int(entry.name))
    return found


def is_alive(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def write_helper(root: Path, body: str) -> None:
    """A real process of ours with that program, found as `text.children.helper` below `root`."""
    package = root / "text" / "children"
    package.mkdir(parents=True)
    (root / "text" / "__init__.py").write_text("")
    (package / "__init__.py").write_text("")
    (package / "serving.py").write_text((REPOSITORY / "text" / "children" / "serving.py").read_text())
    imports = "import os, sys, time\nfrom text.children.serving import Refusal, serve"
    (package / "helper.py").write_text(f"{imports}\n{body}\nsys.exit(serve(prepare))\n")


def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    write_helper(tmp_path, body)
    monkeypatch.setattr(text.child, "ROOT", tmp_path)


def test_answers_come_back_in_order_from_several_processes() -> None:
    children = Children("espeak", {"voice": "it"})
    words = [f"casa {'a' * (i % 7)}" for i in range(200)]
    together = children.read(words)
    assert len(together) == 200
    assert together == [children.read([word])[0] for word in words]
    children.close()


def test_a_killed_parent_leaves_no_process_behind() -> None:
    program = (
        "from text.front_end import FrontEnd; import time;"
        "FrontEnd.create(language='it', text_input='phonemes').symbol_ids('casa'); print('ready', flush=True);"
        "time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    assert parent.stdout.readline() == "ready\n"
    children = children_of_process(parent.pid)
    assert len(children) == 2  # damga's and espeak-ng's
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 10
    while any(map(is_alive, children)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_alive, children))


def test_a_killed_parent_ends_a_child_that_is_at_work(tmp_path: Path) -> None:
    program = (
        "import text.child, pathlib, sys\n"
        f"sys.path.insert(0, {str(REPOSITORY)!r})\n"
        f"text.child.ROOT = pathlib.Path({str(tmp_path)!r})\n"
        "child = text.child.Child('helper', {})\n"
        "print('ready', flush=True); child.ask({})\n"
    )
    write_helper(tmp_path, "def prepare(settings):\n    return lambda request: time.sleep(300)")
    parent = subprocess.Popen([sys.executable, "-c", program], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    assert parent.stdout.readline() == "ready\n"
    children = children_of_process(parent.pid)
    assert len(children) == 1
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 10
    while any(map(is_alive, children)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_alive, children))


def test_secrets_of_the_parent_are_not_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TELEGRAM_BOT_TOKEN", "12345:secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    helper(tmp_path, monkeypatch, "def prepare(settings):\n    return lambda request: dict(os.environ)")
    child = Child("helper", {})
    seen = child.ask({})
    child.close()
    assert "secret" not in "".join(seen.values())
    assert seen["PATH"] == os.environ["PATH"] and seen["ORT_DISABLE_TELEMETRY"] == "1"


def test_a_child_that_dies_is_one_message_with_its_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = "def prepare(settings):\n    return lambda request: 1 / 0"
    helper(tmp_path, monkeypatch, body)
    child = Child("helper", {})
    with pytest.raises(UserError, match=r"text.children.helper ended \(exit code 1\); it said:(.|\n)*division by zero"):
        child.ask({})


def test_a_child_that_cannot_start_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper(tmp_path, monkeypatch, "raise SystemExit('no such library')")
    with pytest.raises(UserError, match=r"ended \(exit code 1\); it said:\n  no such library"):
        Child("helper", {})


def test_a_child_that_hangs_is_ended_after_a_bounded_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = "def prepare(settings):\n    return lambda request: time.sleep(300)"
    helper(tmp_path, monkeypatch, body)
    child = Child("helper", {})
    (pid,) = children_of_process(os.getpid()) - CHILDREN_BEFORE
    with pytest.raises(UserError, match="did not answer within 1 s"):
        child.ask({}, timeout_s=0.5 + 0.5)
    assert not is_alive(pid)


def test_a_child_that_prints_does_not_disturb_its_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = "def prepare(settings):\n    return lambda request: print('Loaded model!', flush=True)"
    helper(tmp_path, monkeypatch, body)
    child = Child("helper", {})
    assert child.ask({}) is None
    child.close()


def test_a_refusal_is_passed_on_word_for_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper(tmp_path, monkeypatch, "def prepare(settings):\n    raise Refusal('install the other one')")
    with pytest.raises(UserError, match="^install the other one$"):
        Child("helper", {})


def test_one_failing_process_fails_the_whole_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = (
        "def prepare(settings):\n"
        "    def answer(request):\n"
        "        if 'bad' in request['texts']:\n            os._exit(7)\n"
        "        return request['texts']\n"
        "    return answer"
    )
    helper(tmp_path, monkeypatch, body)
    children = Children("helper", {})
    with pytest.raises(UserError, match="exit code 7"):
        children.read(["good"] * 500 + ["bad"] + ["good"] * 500)
    assert children.read(["good"]) == ["good"]  # the next batch starts anew
    children.close()


def test_a_missing_package_is_one_line_that_says_what_to_install() -> None:
    with pytest.raises(UserError, match="^language=xx needs no-such-package: pip install -r requirements-phonemes"):
        check_installed(["pytest", "no-such-package"], purpose="language=xx")


def test_a_changed_stress_model_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its file runs code when it is loaded: another file than the one that was looked at must not."""
    folder = tmp_path / "silero_stress" / "data"
    folder.mkdir(parents=True)
    (tmp_path / "silero_stress" / "__init__.py").write_text("raise SystemExit('loaded all the same')")
    (folder / "accentor.pt").write_bytes(b"anything else")
    program = (
        "import importlib.resources as r, pathlib; from text.children import russian;"
        f"r.files = lambda name: pathlib.Path({str(tmp_path / 'silero_stress')!r}); russian._check_model()"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True)
    assert "is not the model of silero-stress 1.5" in result.stderr
    assert "pip install --force-reinstall silero-stress==1.5" in result.stderr


def test_closing_a_front_end_ends_its_processes_and_reading_starts_them_anew() -> None:
    front_end = FrontEnd.create(language="sv", text_input="phonemes")
    first = front_end.symbol_ids("hej")
    before = children_of_process(os.getpid())
    front_end.close()
    assert len(before - children_of_process(os.getpid())) == 1
    assert front_end.symbol_ids("hej") == first


CHILDREN_BEFORE: set[int] = set()


@pytest.fixture(autouse=True)
def _remember_children() -> None:
    CHILDREN_BEFORE.clear()
    CHILDREN_BEFORE.update(children_of_process(os.getpid()))
