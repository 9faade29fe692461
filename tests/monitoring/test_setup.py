"""Everything that watches, at once, with trackers that don't work: training is the same and takes the same time."""

import logging
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from common.log import LOG
from hparams import HParams
from monitoring.logging_setup import configure_logging
from monitoring.observer import BackgroundObserver, Observer, RunInfo, close_all
from monitoring.setup import observers
from monitoring.tensorboard import TensorBoardObserver
from run_directory.records import Record
from support.commands import REPOSITORY, TINY, command, environment, run, write_dataset
from support.runs import assert_same_run, trainer_of
from support.telegram_server import BROKEN, TOKEN, UNAUTHORISED, TelegramServer
from support.trackers import dead_address
from training.session import fit
from training.train_step import StepResult, TrainStep
from training.trainer import Limits


@pytest.fixture
def sick_trackers(monkeypatch: pytest.MonkeyPatch) -> Any:
    """MLflow's server is dead, Telegram's answers 500."""
    with TelegramServer(answers=[BROKEN]) as telegram:
        for name, value in {
            "TELEGRAM_BOT_TOKEN": TOKEN, "TELEGRAM_CHAT_ID": "42", "TELEGRAM_API_BASE": telegram.base,
            "MLFLOW_TRACKING_URI": dead_address(),
        }.items():  # fmt: skip
            monkeypatch.setenv(name, value)
        yield telegram


class Timed:
    """Adds up what an observer takes of the training thread: of its processor time, whatever else the machine does."""

    def __init__(self, observer: Observer) -> None:
        self.observer, self.seconds, self.records = observer, 0.0, 0

    def on_start(self, run: RunInfo) -> None:
        self.observer.on_start(run)

    def on_record(self, record: Record) -> None:
        began = time.thread_time()
        self.observer.on_record(record)
        self.seconds += time.thread_time() - began
        self.records += 1

    def close(self) -> None:
        self.observer.close()


WATCHED = (
    "mlflow_logging=True,telegram_monitoring=True,telegram_notification_interval=10,debug_reporting=True,"
    "debug_report_interval=10,validation_attention_analysis=True,validate_interval=20,max_decoder_steps=20,"
    "tensorboard_logging=True,log_attention_weights=False"
)


@pytest.mark.slow
def test_sick_trackers_change_nothing_and_cost_no_time(
    sick_trackers: TelegramServer, tiny: Callable[..., HParams], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hp = tiny(WATCHED)
    alone = trainer_of(hp, tmp_path / "alone", limits=Limits(max_steps=20))
    alone.fit()
    timed = [Timed(observer) for observer in observers(hp) if isinstance(observer, BackgroundObserver)]
    names = {observer.observer.name for observer in timed}  # type: ignore[attr-defined]
    assert names >= {"TensorBoard", "MLflow", "DebugReport", "Telegram"}
    watched = trainer_of(hp, tmp_path / "watched", limits=Limits(max_steps=20), observers=timed)
    info = RunInfo(tmp_path / "watched", tmp_path / "logs", hp.canonical(), 20, 0, "train.py")
    with caplog.at_level(logging.WARNING, "tacotron2"):
        for observer in timed:
            observer.on_start(info)
        watched.fit()
        for observer in timed:
            observer.observer.patience_s = 60  # type: ignore[attr-defined]
        close_all([observer.observer for observer in timed])
    assert_same_run(alone, watched)
    assert alone.losses == watched.losses
    assert (tmp_path / "watched/debug/report_00000020.json").exists() and sick_trackers.attempts > 0
    assert sum(observer.seconds for observer in timed) / sum(observer.records for observer in timed) < 1e-3
    told = [record.getMessage() for record in caplog.records if "can't be reached" in record.getMessage()]
    assert len(told) == 2 and {text.split(" ")[0] for text in told} == {"MLflow", "Telegram"}


class Stuck:
    """Waits for ever."""

    def __init__(self) -> None:
        self.gate = threading.Event()

    def on_start(self, run: RunInfo) -> None:
        self.gate.wait(60)

    def on_record(self, record: Record) -> None: ...

    def close(self) -> None: ...


def test_none_is_waited_for_longer_than_until_the_end_that_was_given(tmp_path: Path) -> None:
    stuck = Stuck()
    queued = BackgroundObserver(stuck, patience_s=60)
    queued.on_start(RunInfo(tmp_path, tmp_path, {}, None, 0, ""))
    began = time.monotonic()
    close_all([queued], until=began + 0.5)
    assert 0.4 < time.monotonic() - began < 20
    stuck.gate.set()
    queued.close()


def test_all_together_are_waited_for_no_longer_than_one(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    stuck = [Stuck() for _ in range(5)]
    queued = [BackgroundObserver(observer, patience_s=0.5) for observer in stuck]
    for observer in queued:
        observer.on_start(RunInfo(tmp_path, tmp_path, {}, None, 0, ""))
    began = time.perf_counter()
    with caplog.at_level(logging.WARNING, "tacotron2"):
        close_all(queued)
    assert time.perf_counter() - began < 2.5
    assert sum("did not finish" in record.getMessage() for record in caplog.records) == 5
    for observer in stuck:
        observer.gate.set()
    for thread in queued:
        thread.close()


def test_how_a_run_ended_is_an_event_of_its_record(tiny: Callable[..., HParams], tmp_path: Path) -> None:
    from run_directory.metrics_log import read_jsonl
    from run_directory.paths import RunPaths

    paths = RunPaths(tmp_path / "o", tmp_path / "l", True)
    assert fit(trainer_of(tiny(), tmp_path / "o", limits=Limits(max_steps=2)), paths) == 0

    class NoKernel(TrainStep):
        def run(self, *arguments: Any, **more: Any) -> StepResult:
            raise RuntimeError("no kernel")

    with pytest.raises(RuntimeError, match="no kernel"):
        fit(trainer_of(tiny(), tmp_path / "o", limits=Limits(max_steps=4), train_step=NoKernel), paths)
    events = [event for event in read_jsonl(tmp_path / "o/events.jsonl") if event["kind"] in ("ended", "crashed")]
    assert [(event["kind"], event["message"]) for event in events] == [
        ("ended", "max_steps"), ("crashed", "RuntimeError: no kernel"),
    ]  # fmt: skip
    assert events[0]["data"]["signal"] is None


def test_tensorboard_and_mlflow_name_curves_alike(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from monitoring.scalars import scalars_of
    from support.observed_run import run_info, step, validation

    records = step(10), validation(10, samples=False)
    observer = TensorBoardObserver(images=True, alignment_scalars=True, picture_every=1000)
    observer.on_start(run_info(tmp_path))
    for record in records:
        observer.on_record(record)
    observer.close()
    events = EventAccumulator(str(tmp_path / "logs"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {name for record in records for name in scalars_of(vars(record))}


@pytest.mark.spec
def test_tensorboard_draws_every_so_many_steps_and_at_the_end_and_hears_every_validation(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from support.observed_run import run_info, validation

    observer = TensorBoardObserver(images=True, alignment_scalars=True, picture_every=20)
    observer.on_start(run_info(tmp_path))
    for step in (10, 20, 30, 40):
        observer.on_record(validation(step))
    observer.close()
    events = EventAccumulator(str(tmp_path / "logs"))
    events.Reload()
    assert [event.step for event in events.Audio("audio/0")] == [10, 20, 30, 40]
    for picture in ("alignment/0", "sample/0"):
        assert [event.step for event in events.Images(picture)] == [10, 30, 40]


@pytest.mark.slow
@pytest.mark.parametrize("answer", [UNAUTHORISED, BROKEN])
def test_the_token_is_nowhere_in_what_a_run_leaves_behind(answer: Any, tmp_path: Path) -> None:
    """Neither in the run directory, the logs, MLflow's store, nor on the terminal, whatever Telegram answers."""
    write_dataset(tmp_path)
    hparams = TINY.replace("=False", "=True")
    arguments = command("train.py", "-o", "output/anna", "-l", "logs", "--hparams", hparams, "--max-steps", "20")
    with TelegramServer(answers=[answer]) as telegram:
        account = {"TELEGRAM_BOT_TOKEN": TOKEN, "TELEGRAM_CHAT_ID": "42", "TELEGRAM_API_BASE": telegram.base}
        env = environment(tmp_path / "cache") | account
        done = subprocess.run(arguments, cwd=tmp_path, env=env, capture_output=True, timeout=300)
        assert done.returncode == 0, done.stderr
        assert telegram.attempts > 0 and b"Telegram" in done.stderr
    secret = TOKEN.split(":")[1].encode()
    assert secret not in done.stdout + done.stderr
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"hparams.yaml", "run.json", "train.log"} <= {path.name for path in files}
    assert [path for path in files if secret in path.read_bytes()] == []


@pytest.mark.spec
def test_a_short_run_is_in_mlflow_and_says_how_to_look_at_it(tmp_path: Path) -> None:
    write_dataset(tmp_path)
    hparams = TINY.replace("mlflow_logging=False", "mlflow_logging=True")
    arguments = ["-o", "output/anna", "-l", "logs", "--hparams", hparams, "--max-steps", "3"]
    done = run("train.py", *arguments, cwd=tmp_path, cache=tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    assert "mlflow ui --backend-store-uri sqlite:///output/mlflow.db" in done.stderr
    with closing(sqlite3.connect(tmp_path / "output/mlflow.db")) as store:
        assert store.execute("select name, status from runs").fetchall() == [("anna", "FINISHED")]


@pytest.mark.slow
def test_a_tracker_that_was_left_behind_does_not_spoil_the_end(tmp_path: Path) -> None:
    """MLflow is given no time at all, so that the process ends in the middle of its import."""
    write_dataset(tmp_path)
    hparams = TINY.replace("mlflow_logging=False", "mlflow_logging=True")
    arguments = ["-o", "output/anna", "-l", "logs", "--hparams", hparams, "--max-steps", "1"]
    patience = "import monitoring.mlflow_store as store; store.FILES_CLOSE_S = 0.0"
    program = f"{patience}; import train; train.leave(train.main({arguments}))"
    env = environment(tmp_path / "cache") | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0 and "MLflow did not finish within the 0 s" in done.stderr, done.stderr
    assert done.stderr.rstrip().endswith('"Hello." -o hello.wav'), "the last words of the run come last"


def test_a_log_line_never_shows_a_secret_of_an_address(tmp_path: Path) -> None:
    configure_logging(tmp_path)
    try:
        LOG.warning("at %s: %d tries", "http://me:secret@host/api?key=secret", 3)
    finally:
        configure_logging()
    text = (tmp_path / "train.log").read_text()
    assert "at http://***@host/api?*** 3 tries" in text and "secret" not in text


def test_a_refused_address_is_neither_echoed_nor_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import train

    for address in ("http://me:secret@host", "http://host/api?key=secret"):
        arguments = ["-o", str(tmp_path / "o"), "-l", str(tmp_path / "l"), "--preset", "demo"]
        assert train.main([*arguments, "--hparams", f"mlflow_tracking_uri={address}"]) == 2
    said = capsys.readouterr()
    assert "secret" not in said.out + said.err and "must hold no user name, password or key" in said.err
    assert list(tmp_path.iterdir()) == []
