"""What a search tells Telegram and MLflow: its beginning, each new best, its end; a parent run and its children."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from monitoring.mlflow_store import prepare_sqlite
from monitoring.observer import RunInfo
from monitoring.telegram import Account
from run_directory.records import Event
from smart_tuner.monitors.news import END, TRIAL
from smart_tuner.monitors.study_mlflow import StudyMLflow
from smart_tuner.monitors.study_telegram import StudyTelegram
from support.observed_run import run_info
from support.studies import write_trial
from support.telegram_server import BROKEN, TOKEN, TelegramServer
from support.trackers import dead_address

pytestmark = pytest.mark.filterwarnings("default")  # warnings of MLflow's dependencies are not ours to solve
BEST = {"number": 1, "value": 0.61, "params": {"learning_rate": 0.002}}
ENDS = Event(2, END, "done", {"error": "", "seconds": 4000.0, "best": BEST})


def study_run(folder: Path) -> RunInfo:
    return run_info(folder / "output" / "study", total_steps=3)


def trial(number: int, folder: Path, *, is_best: bool, value: float = 0.61, is_failed: bool = False) -> Event:
    data: dict[str, Any] = {
        "number": number, "ending": "died" if is_failed else "finished", "value": value, "is_failed": is_failed,
        "is_best": is_best, "done": number + 1, "params": {"learning_rate": 0.002, "use_guided_attn": True},
        "parts": {} if is_failed else {"alignment": 0.9}, "directory": str(folder / f"trial_{number:05d}"),
    }  # fmt: skip
    return Event(number + 1, TRIAL, data["ending"], data)


@pytest.fixture
def server() -> Iterator[TelegramServer]:
    with TelegramServer() as standing:
        yield standing


def telegram_of(server: TelegramServer, language: str = "en") -> StudyTelegram:
    account = Account(TOKEN, "42", server.base)
    return StudyTelegram(account, "output", language=language, closing=threading.Event(), pause_s=0.01)


def told(observer: Any, folder: Path, *events: Event) -> None:
    observer.on_start(study_run(folder))
    for event in events:
        observer.on_record(event)
    observer.close()


def test_a_search_is_told_from_its_beginning_to_its_end(server: TelegramServer, tmp_path: Path) -> None:
    write_trial(tmp_path / "trial_00001")
    told(telegram_of(server), tmp_path, trial(0, tmp_path, is_best=False), trial(1, tmp_path, is_best=True), ENDS)
    begun, best, ended = server.messages
    assert "output: search begins, 0 of 3 trials are finished" in begun.text
    assert "new best, trial 1: 0.6100 (2 of 3 finished)" in best.text and "learning_rate=0.002" in best.text
    assert best.picture is not None and best.picture.startswith(b"\x89PNG")
    assert "search ended (all trials done) after 1h06m" in ended.text and "trial 1: 0.6100" in ended.text


def test_russian_is_spoken_where_it_is_asked_for(server: TelegramServer, tmp_path: Path) -> None:
    told(telegram_of(server, "ru"), tmp_path, trial(0, tmp_path, is_best=True), ENDS)
    assert all("\u0438" in message.text for message in server.messages) and len(server.messages) == 3


def test_a_telegram_that_fails_is_said_once(server: TelegramServer, tmp_path: Path, caplog) -> None:
    server.answers = [BROKEN]
    told(telegram_of(server), tmp_path, *(trial(i, tmp_path, is_best=True) for i in range(3)))
    assert caplog.text.count("Telegram can't be reached") == 1 and TOKEN not in caplog.text


def test_mlflow_has_a_parent_and_a_child_for_each_trial_once(tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    prepare_sqlite(uri)
    write_trial(tmp_path / "trial_00001")
    events = trial(0, tmp_path, is_best=False, is_failed=True), trial(1, tmp_path, is_best=True), ENDS
    for _ in range(2):  # a launch that was killed before it knew that all was delivered, and the next
        told(StudyMLflow("output", experiment="voices", tracking_uri=uri), tmp_path, *events)
    client = MlflowClient(tracking_uri=uri)
    runs = client.search_runs([client.get_experiment_by_name("voices").experiment_id])
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    (parent,) = parents
    children = {run.info.run_name: run for run in runs if run not in parents}
    assert parent.info.run_name == "search output" and parent.info.status == "FINISHED"
    assert parent.data.metrics["best_value"] == 0.61 and parent.data.tags["best.learning_rate"] == "0.002"
    assert {run.data.tags["mlflow.parentRunId"] for run in children.values()} == {parent.info.run_id}
    assert {name: run.info.status for name, run in children.items()} == {
        "trial_00000": "FAILED", "trial_00001": "FINISHED"
    }  # fmt: skip
    best = children["trial_00001"]
    assert best.data.params == {"learning_rate": "0.002", "use_guided_attn": "True"}
    assert best.data.metrics == {"value": 0.61, "alignment": 0.9, "score": 0.6}
    kept = {item.path for item in client.list_artifacts(best.info.run_id, "samples")}
    assert kept == {"samples/step_00000040_0.png", "samples/step_00000040_0.wav"}


def test_a_dead_mlflow_is_said_once_and_holds_nothing_up(tmp_path: Path, caplog) -> None:
    observer = StudyMLflow("output", experiment="voices", tracking_uri=dead_address())
    told(observer, tmp_path, trial(0, tmp_path, is_best=True), ENDS)
    assert caplog.text.count("can't be reached") == 1 and "lacks 2 of the search's records" in caplog.text
