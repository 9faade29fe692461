"""A run that is down: what its files tell, which checkpoints are whole, and the command that goes on."""

import hashlib
import json
import os
import pickle
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

import emergency_recovery
import train
from checkpointing import checkpoint_file
from checkpointing import directory as checkpoint_dir
from common.errors import NothingToRecover, UserError
from hparams import HParams
from monitoring import telegram
from recovery import repair
from recovery.diagnosis import Diagnosis, diagnose, format_diagnosis, newest_run
from run_directory.paths import exclusive_lock, is_in_use
from support.failed_runs import Malicious, evaluation, event, steps, write_run
from support.limits import disk_that_takes
from support.paths import REPOSITORY
from support.runs import logs_are_closed, trained
from support.telegram_server import TOKEN, UNAUTHORISED, TelegramServer

Tiny = Callable[..., HParams]
__all__ = ["logs_are_closed"]


# ---- what became of it


@pytest.mark.parametrize(
    ("events", "state"),
    [
        ([event("started"), event("ended", "epochs")], "finished"),
        ([event("started"), event("ended", "signal")], "interrupted"),
        ([event("started"), event("gave_up", "three rollbacks")], "gave_up"),
        ([event("started"), event("crashed", "ValueError: no")], "crashed"),
        ([event("started")], "killed"),
        ([], "not_started"),
        ([event("started"), event("ended", "epochs"), event("started", attempt=2)], "killed"),
        ([event("started"), event("started", attempt=2), event("ended", "max_steps", attempt=2)], "finished"),
    ],
)
def test_the_last_launch_decides_what_became_of_a_run(tmp_path: Path, events: list, state: str) -> None:
    assert diagnose(write_run(tmp_path / "run", events)).state == state


def test_a_run_whose_process_lives_is_running_and_one_that_says_nothing_is_asked_after(tmp_path: Path) -> None:
    run = write_run(tmp_path, [event("started")], pid=7, host=platform.node())
    with exclusive_lock(run, what_next=""):
        found = diagnose(run)
    assert found.state == "running" and "process 7" in found.why and "does it hang?" in found.why
    assert diagnose(run).state == "killed"  # whatever process has its number by now


@pytest.mark.parametrize(("host", "age_s", "state"), [("elsewhere", 10, "running"), ("elsewhere", 1000, "killed"),
                                                      (platform.node(), 10, "killed")])  # fmt: skip
def test_a_run_of_another_machine_lives_as_long_as_it_writes(
    tmp_path: Path, host: str, age_s: float, state: str
) -> None:
    latest = {**event("started"), "time": time.time() - age_s}
    assert diagnose(write_run(tmp_path, [latest], host=host)).state == state


def test_two_can_not_train_in_one_directory(tmp_path: Path) -> None:
    run = write_run(tmp_path, [event("started")], pid=7)
    is_second = pytest.raises(UserError, match="process 7 is at work in it; end it first")
    with exclusive_lock(run, what_next=""), is_second, exclusive_lock(run, what_next="end it first"):
        pass
    with exclusive_lock(run, what_next=""):
        assert is_in_use(run)
    assert not is_in_use(run)


def test_the_command_of_a_run_that_still_trains_is_refused(
    tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever starts it again in a loop must not have two of them delete each other's checkpoints."""
    run = write_run(tmp_path / "run", [event("started")], pid=7)
    with exclusive_lock(run, what_next=""):
        assert train.main(["-o", str(run), "-l", str(tmp_path / "logs"), "--preset", "demo"]) == 2
    assert "process 7 is at work in it; end it first (Ctrl-C or SIGTERM saves)" in capsys.readouterr().err


def test_the_page_of_a_run_that_is_down_is_renewed(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = mixed / "report.html"
    page.write_text("running")
    assert emergency_recovery.main([str(mixed), "--dry-run"]) == 0 and page.read_text() == "running"
    with exclusive_lock(mixed, what_next=""):
        assert emergency_recovery.main([str(mixed)]) == 0 and page.read_text() == "running"  # the run's own to renew
    assert emergency_recovery.main([str(mixed)]) == 0 and "the process no longer exists" in page.read_text()
    assert f"done:        renewed {page}" in capsys.readouterr().out


def test_a_disk_that_refuses_is_said_after_the_diagnosis(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with disk_that_takes(100):
        assert emergency_recovery.main([str(mixed)]) == 2
    said = capsys.readouterr()
    assert "state:       killed" in said.out and f"cannot write to {mixed} (File too large); free space" in said.err


def test_a_run_that_had_saved_nothing_is_told_to_begin_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert emergency_recovery.main([str(write_run(tmp_path, [event("started")]))]) == 5
    assert "it has saved nothing yet; the command that began it begins it anew" in capsys.readouterr().err


def test_a_directory_that_nothing_was_written_to_is_gone_again(tmp_path: Path) -> None:
    with exclusive_lock(tmp_path / "a" / "b", what_next=""):
        assert (tmp_path / "a" / "b").is_dir()
    assert not (tmp_path / "a" / "b").exists()


HALF = "batch_size", "gradient_accumulation_steps", "fp16_run"
CALMER = "learning_rate", "grad_clip_thresh"


@pytest.mark.parametrize(
    ("events", "metrics", "cause", "changed"),
    [
        ([event("crashed", "any words", cause="out_of_memory")], [], "memory ran out", HALF),
        ([event("save_failed", "any words")], [], "disk was full", ()),
        ([event("save_failed", "any words", cause="out_of_memory")], [], "memory ran out", HALF),
        ([event("crashed", "any words", cause="disk_full")], [], "disk was full", ()),
        ([event("crashed", "ValueError: out of memory, no space left on device")], [], "", ()),
        ([], steps(skipped=3), "3 skipped steps", CALMER),
        ([event("rollback")], [], "1 rollbacks", CALMER),
        ([], steps(grad_norm=5e4), "reached 5e\\+04", CALMER),
        ([], steps(total=9.0), "from about 1 to 9", CALMER),
        ([], [evaluation(1, 0.9), evaluation(2, 0.1)], "was lost", ("learning_rate", "guide_loss_weight")),
        ([], [*steps(), evaluation(1, 0.9)], "", ()),
    ],
)
def test_causes_and_what_would_be_safer(
    tmp_path: Path, events: list, metrics: list, cause: str, changed: tuple[str, ...]
) -> None:
    found = diagnose(write_run(tmp_path, [event("started"), *events], metrics))
    assert tuple(found.safer) == changed and len(found.reasons) == len(changed)
    if cause:
        assert any(re.search(cause, text) for text in found.causes)
        assert "cause: " in format_diagnosis(found) and "advice: " in format_diagnosis(found)
    else:
        assert not found.causes and not found.advice


def test_a_run_that_ended_well_gets_no_advice(tmp_path: Path) -> None:
    found = diagnose(write_run(tmp_path, [event("started"), event("ended", "epochs")], steps(total=9.0)))
    assert not found.causes and not found.safer


def test_half_a_line_and_a_damaged_run_file_are_no_obstacle(tmp_path: Path) -> None:
    run = write_run(tmp_path, [event("started", step=3)])
    with (run / "events.jsonl").open("a") as f:
        f.write('{"time": 1, "att')
    (run / "run.json").write_text("{")
    assert (diagnose(run).state, diagnose(run).step) == ("killed", 3)


def test_rubbish_in_any_file_is_named_and_no_obstacle(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A disk that failed may have left anything anywhere; what is to go on from is what the checkpoint holds."""
    first, second = (json.dumps(event("started", step=step)) for step in (3, 4))
    (mixed / "events.jsonl").write_bytes(f"{first}\n".encode() + b"\xff rubbish\n" + f"{second}\n[1]\n".encode())
    (mixed / "metrics.jsonl").write_text('{"type": "step", "step": 4, "losses": {}}\n{"type": "eval"}\n')
    (mixed / "hparams.yaml").write_text("batch_size: foo\n")
    (mixed / "run.json").write_text("[]")
    assert emergency_recovery.main([str(mixed)]) == 0
    said = capsys.readouterr().out
    assert "last record: step 4" in said and "unreadable:  events.jsonl: 2 unreadable lines" in said
    assert yaml.safe_load((mixed / "recovery_hparams.yaml").read_text())["batch_size"] == 2


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no run"):
        diagnose(tmp_path)
    with pytest.raises(UserError, match="no such directory"):
        diagnose(tmp_path / "nothing")


def test_the_newest_run_is_found_however_deep(tmp_path: Path) -> None:
    for i, name in enumerate(("a", "b/deep/er", "c", "c/previous/1", "c/mlflow-artifacts/1/artifacts")):
        run = write_run(tmp_path / name, [event("started")])
        for path in run.glob("*.*"):
            os.utime(path, (1e9, 1e9 + {"b/deep/er": 50, "c/mlflow-artifacts/1/artifacts": 99}.get(name, i)))
    assert newest_run(tmp_path) == tmp_path / "b/deep/er"
    with pytest.raises(NothingToRecover, match="no run under"):
        newest_run(tmp_path / "nothing")


# ---- checkpoints


@pytest.fixture(scope="module")
def finished(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six steps with checkpoints of the steps 2, 4 and 6."""
    directory = tmp_path_factory.mktemp("finished") / "run"
    hp = tiny("iters_per_checkpoint=2,validate_interval=4")
    trained(hp, directory, 6).recorder.close()
    (directory / "hparams.yaml").write_text(yaml.safe_dump(hp.canonical()))
    return directory


@pytest.fixture
def mixed(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two whole checkpoints, and one of each kind that is not."""
    import shutil

    run = shutil.copytree(finished, tmp_path / "output" / "run")
    write_run(run, [event("started")])
    folder = run / "checkpoints"
    content = checkpoint_file.load(folder / "step_00000004.pt")
    checkpoint_dir.save(replace(content, step=7), folder)
    truncated = folder / "step_00000007.pt"
    truncated.write_bytes(truncated.read_bytes()[:-100])
    raw = checkpoint_file.read(folder / "step_00000004.pt")
    raw["model"]["embedding.weight"][0, 0] = float("nan")
    torch.save({**raw, "step": 8}, folder / "step_00000008.pt")
    raw = checkpoint_file.read(folder / "step_00000004.pt")
    next(iter(raw["training"]["optimizer"]["state"].values()))["exp_avg_sq"].fill_(float("inf"))
    torch.save({**raw, "step": 9}, folder / "step_00000009.pt")
    torch.save({"state_dict": {}}, folder / "nvidia.pt")
    (folder / "holiday.pt").write_bytes(b"\xff\xd8\xff\xe0 not a checkpoint")
    (folder / "evil.pt").write_bytes(pickle.dumps(Malicious()))
    torch.save({"format": 1, "epoch": 3}, folder / "other.pt")
    (folder / "folder.pt").mkdir()
    (folder / "gone.pt").symlink_to(tmp_path / "nothing")
    (folder / "step_00000010.pt").symlink_to(tmp_path / "nothing")
    (folder / "step_00000011.pt").mkdir()
    (folder / "step_00000011.json").write_text("[]")
    monkeypatch.chdir(tmp_path)
    return run


EXPECTED: Mapping[str, str | None] = {
    "step_00000011.pt": "unreadable manifest",
    "step_00000010.pt": "link to nothing",
    "step_00000009.pt": "optimiser state that is not finite",
    "step_00000008.pt": "weights that are not finite",
    "step_00000007.pt": "bytes, its manifest says",
    "step_00000006.pt": None,
    "step_00000004.pt": None,
    "step_00000002.pt": None,
    "nvidia.pt": "no checkpoint of this trainer",
    "holiday.pt": "is a picture, 21 bytes, not a checkpoint",
    "evil.pt": "could run foreign code",
    "other.pt": "no checkpoint of this trainer",
    "folder.pt": "Is a directory",
    "gone.pt": "link to nothing",
}


def hashes(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*.pt") if p.is_file()}


def test_every_file_gets_its_verdict_and_none_is_executed(mixed: Path) -> None:
    found = {v.path.name: v.problem for v in repair.examine(mixed).statuses}
    assert found.keys() == EXPECTED.keys()
    for name, expected in EXPECTED.items():
        assert (found[name] is None) == (expected is None) and (expected or "") in (found[name] or ""), name
    assert not Path("executed").exists()


def test_pointers_are_repaired_and_no_checkpoint_is_changed(mixed: Path) -> None:
    folder = mixed / "checkpoints"
    before = hashes(folder)
    (folder / "best.json").write_text("{")
    assert emergency_recovery.main([str(mixed)]) == 0
    assert checkpoint_dir.pointed(folder, "last") == checkpoint_dir.checkpoint_path(folder, 6)
    assert checkpoint_dir.pointed(folder, "best") == checkpoint_dir.checkpoint_path(folder, 6)  # nothing was validated
    assert hashes(folder) == before
    assert repair.repair_pointers(mixed, repair.examine(mixed)) == []


def test_a_dry_run_writes_nothing(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (mixed / "checkpoints" / "last.json").unlink()
    before = {path: path.lstat().st_mtime_ns for path in mixed.rglob("*")}
    switches = ["--dry-run", "--restart", "--strip-optimizer", "--export-weights"]
    assert emergency_recovery.main([str(mixed), *switches]) == 0
    assert {path: path.lstat().st_mtime_ns for path in mixed.rglob("*")} == before
    assert "train.py" in capsys.readouterr().out


def test_without_an_argument_the_newest_run_under_output_is_taken(
    mixed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert emergency_recovery.main([]) == 0
    out = capsys.readouterr().out
    assert "state:       killed" in out and "step_00000006.pt" in out and "whole" in out


def test_json_is_one_object(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert emergency_recovery.main(["--json", str(mixed)]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["state"] == "killed" and len(content["checkpoints"]) == len(EXPECTED)


def test_setting_aside_moves_only_what_is_named_like_a_checkpoint(mixed: Path) -> None:
    before = hashes(mixed / "checkpoints")
    moved = repair.quarantine(repair.examine(mixed))
    assert sorted(path.name for path in moved) == [f"step_{step:08d}.pt" for step in (7, 8, 9, 10, 11)]
    assert hashes(mixed / "checkpoints") == before  # all of them, some in another place
    assert {p.name for p in (mixed / "checkpoints").glob("*.pt")} >= {"evil.pt", "holiday.pt", "nvidia.pt"}


def test_nothing_whole_is_exit_5(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for step in (2, 4, 6):
        checkpoint_dir.checkpoint_path(mixed / "checkpoints", step).write_bytes(b"gone")
    assert emergency_recovery.main([str(mixed)]) == 5
    assert "none of its 14 checkpoints is whole" in capsys.readouterr().err


def test_a_named_checkpoint_that_is_damaged_is_refused(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = mixed / "checkpoints"
    assert emergency_recovery.main([str(mixed), "--checkpoint", str(folder / "step_00000008.pt")]) == 5
    assert emergency_recovery.main([str(mixed), "--checkpoint", str(folder / "step_00000099.pt")]) == 2
    assert "no such file" in capsys.readouterr().err


def test_a_stripped_copy_and_bare_weights_hold_the_weights(mixed: Path) -> None:
    folder = mixed / "checkpoints"
    assert emergency_recovery.main([str(mixed), "--strip_optimizer", "--export-weights"]) == 0
    source = checkpoint_file.load(checkpoint_dir.checkpoint_path(folder, 6))
    stripped = checkpoint_file.load(checkpoint_dir.checkpoint_path(mixed / "recovered", 6))
    bare = torch.load(mixed / "recovered" / "step_00000006.weights.pt", weights_only=True)
    assert stripped.training is None and bare["iteration"] == 6
    for weights in (stripped.model, bare["state_dict"]):
        assert all(torch.equal(weights[name], value) for name, value in source.model.items())


# ---- going on


def dead(directory: Path, *command: str, processes: int = 1) -> Diagnosis:
    return Diagnosis(directory, "killed", "", 5, None, ("train.py", *command), None, processes)


@pytest.mark.parametrize(
    ("command", "kept"),
    [
        ("-o out -l logs --hparams batch_size=2 --max-steps 9", "-l logs --max-steps 9"),
        ("--output_directory=out --log_directory=logs --preset demo --fresh", "--log_directory=logs"),
        ("-oout -l logs -c old.pt --warm-start --max_minutes=5", "-l logs --max_minutes=5"),
        ("--skip-bad-data --hparams=batch_size=2 -l logs", "--skip-bad-data -l logs"),
        ("", "-l logs/run"),
    ],
)
def test_the_command_that_goes_on_keeps_what_is_no_hyperparameter(tmp_path: Path, command: str, kept: str) -> None:
    run = tmp_path / "run"
    words = repair.restart_command(dead(run, *command.split()), run / "p.yaml", checkpoint=None)
    own = f"-o {run} --hparams-file {run / 'p.yaml'} --resume-with-changes"
    assert words == [sys.executable, str(REPOSITORY / "train.py"), *kept.split(), *own.split()]


def test_a_chosen_checkpoint_goes_on_in_a_directory_of_its_own(tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = repair.restart_command(dead(run), run / "p.yaml", checkpoint=run / "a.pt")
    assert words[words.index("-o") + 1] == str(tmp_path / "run-recovered")
    assert words[words.index("-c") + 1] == str(run / "a.pt")


def test_a_run_that_was_only_interrupted_goes_on_by_its_own_command(
    mixed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train.py", "-o", "a b", "--fresh", "--preset", "demo"]
    write_run(mixed, [event("started"), event("ended", "signal")], command=command, working_directory="/elsewhere")
    assert emergency_recovery.main([str(mixed)]) == 0
    out = capsys.readouterr().out
    assert "to go on:    python train.py -o 'a b' --preset demo   (in /elsewhere)" in out  # --fresh would begin anew
    assert "safer" not in out and "--restart" not in out and not (mixed / repair.PROPOSAL).exists()


def test_safer_settings_come_first_only_after_a_fault(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for metrics, first in (([], "python train.py"), (steps(skipped=3), "python emergency_recovery.py")):
        write_run(mixed, [event("started")], metrics)
        assert emergency_recovery.main([str(mixed)]) == 0
        out = capsys.readouterr().out
        assert f"to go on:    {first}" in out and ("safer:" in out) == bool(metrics)


def test_several_processes_go_on_as_several(tmp_path: Path) -> None:
    words = repair.restart_command(dead(tmp_path, processes=2), tmp_path / "p.yaml", checkpoint=None)
    assert words[1:5] == [str(REPOSITORY / "multiproc.py"), "--n_gpus", "2", str(REPOSITORY / "train.py")]


def test_the_proposal_holds_what_differs_from_the_defaults_and_its_reasons(mixed: Path, tiny: Tiny) -> None:
    saved = checkpoint_dir.checkpoint_path(mixed / "checkpoints", 6)
    path = repair.write_proposal(mixed, saved, {"learning_rate": 5e-4}, ["learning_rate=0.0005: smaller steps"])
    text = path.read_text()
    content = yaml.safe_load(text)
    assert content["learning_rate"] == 5e-4 and content["batch_size"] == 2 and "mel_fmin" not in content
    assert "# learning_rate=0.0005: smaller steps" in text


def test_a_run_that_still_trains_is_not_started_twice(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(mixed, [event("started")], host=platform.node())
    with exclusive_lock(mixed, what_next=""):
        assert emergency_recovery.main([str(mixed), "--restart"]) == 2
    assert "still at work" in capsys.readouterr().err


def test_help_needs_no_torch() -> None:
    code = "import sys, emergency_recovery\ntry: emergency_recovery.main(['--help'])\nexcept SystemExit: pass\n"
    check = "assert not {'torch', 'numpy'} & set(sys.modules), 'heavy'"
    subprocess.run([sys.executable, "-c", code + check], cwd=REPOSITORY, check=True, capture_output=True)


def test_train_tells_the_same_of_a_run(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["--diagnose", str(mixed)]) == 0
    assert "state:       killed" in capsys.readouterr().out
    assert train.main(["--diagnose", "nowhere"]) == 2
    assert "nowhere: no such directory" in capsys.readouterr().err


def account(monkeypatch: pytest.MonkeyPatch, server: TelegramServer) -> None:
    for name, value in ((telegram.TOKEN, TOKEN), (telegram.CHAT, "42"), (telegram.BASE, server.base)):
        monkeypatch.setenv(name, value)


def test_notify_tells_by_telegram(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with TelegramServer() as server:
        account(monkeypatch, server)
        assert emergency_recovery.main([str(mixed), "--notify"]) == 0
        (message,) = server.messages
        assert "state:       killed" in message.text and message.fields["chat_id"] == "42"


def test_notify_says_what_it_lacks_and_hides_the_token(
    mixed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(telegram.TOKEN, raising=False)
    assert emergency_recovery.main([str(mixed), "--notify"]) == 2
    assert "--notify needs a bot's token in TELEGRAM_BOT_TOKEN" in capsys.readouterr().err
    with TelegramServer([UNAUTHORISED]) as server:
        account(monkeypatch, server)
        assert emergency_recovery.main([str(mixed), "--notify"]) == 0
    said = capsys.readouterr().err
    assert "warning: Telegram refuses" in said and TOKEN not in said
