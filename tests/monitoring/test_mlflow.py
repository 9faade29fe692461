"""MLflow gets what the run's own files hold: once, completely, also after outages; and a dead server costs nothing."""

import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from monitoring import mlflow as monitor
from monitoring.mlflow import MLflowObserver
from monitoring.mlflow_store import follow_move, prepare_sqlite, store_home, store_uri, ui_command
from monitoring.observer import BackgroundObserver, RunInfo
from run_directory.metrics_log import RunLog
from run_directory.records import Event, Record
from support.observed_run import run_info, step, validation
from support.trackers import dead_address

pytestmark = pytest.mark.filterwarnings("default")  # warnings of MLflow's dependencies are not ours to solve
ENDED = Event(30, "ended", "max_steps", {"signal": None})


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Making one takes seconds, so the tests copy this."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    prepare_sqlite(f"sqlite:///{path}")
    return path


@pytest.fixture
def runs(empty_store: Path, tmp_path: Path) -> Path:
    """A folder of runs with a store."""
    shutil.copyfile(empty_store, tmp_path / "mlflow.db")
    return tmp_path


def observer_of(**more: Any) -> MLflowObserver:
    settings = {"experiment": "voices", "tracking_uri": "", "images": True, "alignment_scalars": True}
    return MLflowObserver(**{**settings, "picture_every": 1000, **more})


def launch(info: RunInfo, *records: Record, attempt: int = 1, observer: MLflowObserver | None = None) -> MLflowObserver:
    """One launch of a run, as a trainer does it: to disk first, then to the observer."""
    log, observer = RunLog(info.directory, attempt=attempt), observer or observer_of()
    if attempt > 1:
        log.rewind(info.first_step)
    observer.on_start(info)
    for record in records:
        log.write(record)
        observer.on_record(record)
    log.close()
    observer.close()
    return observer


def client_of(uri: str) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=uri)


def only_run(runs: Path, experiment: str = "voices") -> tuple[Any, Any]:
    client = client_of(f"sqlite:///{runs}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    return client, run


def curve(client: Any, run: Any, name: str) -> list[tuple[int, float]]:
    return sorted((point.step, point.value) for point in client.get_metric_history(run.info.run_id, name))


def files(client: Any, run: Any, folder: str | None = None) -> list[str]:
    return sorted(item.path for item in client.list_artifacts(run.info.run_id, folder))


# -- what MLflow has of a run -----------------------------------------------------------------------------------------


def test_a_run_is_found_under_its_name_with_parameters_curves_and_its_end(runs: Path) -> None:
    info = run_info(runs / "anna", hparams="batch_size=7")
    launch(info, step(10, loss=0.5), step(20, loss=0.4), validation(20), step(30, loss=0.3), ENDED)
    client, run = only_run(runs)
    assert (run.info.run_name, run.info.status) == ("anna", "FINISHED")
    assert run.data.params["batch_size"] == "7" and set(run.data.params) == set(info.hparams)
    assert curve(client, run, "train/total") == [(10, 0.5), (20, 0.4), (30, 0.3)]
    assert curve(client, run, "free_running/alignment") == [(20, 0.83)]
    assert curve(client, run, "validation/score") == [(20, 0.7)]
    assert run.data.tags["best.step"] == "20" and run.data.tags["ended"] == "step 30: max_steps"


def test_pictures_sounds_and_the_runs_files_are_kept_beside_the_store(runs: Path) -> None:
    info = run_info(runs / "anna")
    (info.directory / "hparams.yaml").write_text("seed: 1\n")
    launch(info, validation(20), validation(30), ENDED, observer=observer_of(picture_every=1))
    client, run = only_run(runs)
    assert {"hparams.yaml", "events.jsonl", "images", "samples"} <= set(files(client, run))
    assert files(client, run, "samples") == ["samples/step_00000020.wav", "samples/step_00000030.wav"]
    pictures = [name for name in files(client, run, "images") if name.endswith(".png")]
    assert [re.search(r"step\W(\d+)", name)[1] for name in pictures] == ["20", "30"]
    assert run.info.artifact_uri.startswith((runs / "mlflow-artifacts").as_uri())


def test_the_newest_picture_comes_at_the_end_whatever_the_interval(runs: Path) -> None:
    launch(run_info(runs / "anna"), validation(20), validation(30), validation(40), ENDED)
    client, run = only_run(runs)
    assert files(client, run, "samples") == ["samples/step_00000020.wav", "samples/step_00000040.wav"]


def test_alignment_is_left_out_where_the_user_says_so(runs: Path) -> None:
    """log_attention_weights and log_alignment_metrics hold for MLflow too."""
    launch(run_info(runs / "anna"), validation(20), ENDED, observer=observer_of(images=False, alignment_scalars=False))
    client, run = only_run(runs)
    assert "images" not in files(client, run) and curve(client, run, "free_running/alignment") == []


@pytest.mark.parametrize(
    ("event", "status"),
    [
        (ENDED, "FINISHED"),
        (Event(30, "ended", "signal", {"signal": 15}), "KILLED"),
        (Event(30, "crashed", "RuntimeError"), "FAILED"),
    ],
)
def test_the_status_says_how_the_run_ended(runs: Path, event: Event, status: str) -> None:
    launch(run_info(runs / "anna"), step(10), event)
    assert only_run(runs)[1].info.status == status


def test_what_is_not_finite_is_left_out(runs: Path) -> None:
    launch(run_info(runs / "anna"), step(10, grad_norm=float("nan")), step(20, loss=float("inf")), ENDED)
    client, run = only_run(runs)
    assert curve(client, run, "progress/grad_norm") == [(20, 0.9)] and curve(client, run, "train/total") == [(10, 0.5)]


# -- going on ---------------------------------------------------------------------------------------------------------


def test_a_resumed_run_goes_on_in_the_same_mlflow_run_with_each_step_once(runs: Path) -> None:
    info = run_info(runs / "anna")
    launch(info, step(10), step(20), validation(20), step(30), Event(30, "ended", "signal", {"signal": 2}))
    again = [step(30), step(40), validation(40, is_best=False), replace(ENDED, step=40)]
    launch(run_info(runs / "anna", first_step=20), *again, attempt=2)
    client, run = only_run(runs)
    assert [n for n, _ in curve(client, run, "train/total")] == [10, 20, 30, 40]
    assert [n for n, _ in curve(client, run, "validation/score")] == [20, 40]
    assert run.info.status == "FINISHED"


def test_steps_that_training_took_back_are_shown_again(runs: Path) -> None:
    records = step(10, loss=1.0), step(20, loss=9.0), Event(20, "rollback", "to step 10"), step(20, loss=2.0), ENDED
    launch(run_info(runs / "anna"), *records)
    client, run = only_run(runs)
    assert curve(client, run, "train/total") == [(10, 1.0), (20, 2.0), (20, 9.0)]


def test_a_changed_parameter_becomes_a_tag(runs: Path) -> None:
    launch(run_info(runs / "anna"), step(10), ENDED)
    launch(run_info(runs / "anna", hparams="epochs=9", first_step=10), step(20), ENDED, attempt=2)
    _, run = only_run(runs)
    assert run.data.params["epochs"] == "500000" and run.data.tags["changed.epochs"] == "9 from step 10"


def test_a_run_that_is_gone_from_the_store_is_made_anew_with_all_its_steps(runs: Path) -> None:
    launch(run_info(runs / "anna"), step(10), ENDED)
    client, run = only_run(runs)
    client.delete_run(run.info.run_id)
    launch(run_info(runs / "anna", first_step=10), step(20), ENDED, attempt=2)
    client, new = only_run(runs)
    assert new.info.run_id != run.info.run_id and [n for n, _ in curve(client, new, "train/total")] == [10, 20]


def test_another_experiment_gets_a_run_of_its_own_with_all_steps(runs: Path) -> None:
    launch(run_info(runs / "anna"), step(10), ENDED)
    launch(run_info(runs / "anna", first_step=10), step(20), attempt=2, observer=observer_of(experiment="other"))
    client, run = only_run(runs, "other")
    assert [n for n, _ in curve(client, run, "train/total")] == [10, 20]


def test_two_runs_side_by_side_share_a_store(runs: Path) -> None:
    for name in ("anna", "bert"):
        launch(run_info(runs / name), step(10), ENDED)
    client = client_of(f"sqlite:///{runs}/mlflow.db")
    found = client.search_runs([client.get_experiment_by_name("voices").experiment_id])
    assert {run.info.run_name for run in found} == {"anna", "bert"}


def test_a_dead_server_is_said_once_and_holds_nothing_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    queued = BackgroundObserver(observer_of(tracking_uri=dead_address()))
    with caplog.at_level(logging.WARNING, "tacotron2"):
        queued.on_start(run_info(tmp_path / "anna"))
        began = time.perf_counter()
        for n in range(200):
            queued.on_record(step(n))
        assert time.perf_counter() - began < 1
        queued.close(timeout_s=60)
    told = [record.getMessage() for record in caplog.records]
    assert [("can't be reached" in text, "next launch" in text) for text in told] == [(True, False), (False, True)]


def test_after_an_outage_all_is_delivered_once(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "FLUSH_EVERY_S", 0.0)
    monkeypatch.setattr(monitor, "RETRY_EVERY_S", 0.0)
    observer, store = observer_of(), monitor.MLflowObserver._deliver
    broken_at = 20

    def deliver(self: MLflowObserver, *, is_last: bool) -> None:
        if any(line["step"] == broken_at for _, line in self._pending) and not self._has_warned:
            raise ConnectionError("the server is gone")
        store(self, is_last=is_last)

    monkeypatch.setattr(monitor.MLflowObserver, "_deliver", deliver)
    launch(run_info(runs / "anna"), *(step(n) for n in range(10, 60, 10)), ENDED, observer=observer)
    client, run = only_run(runs)
    assert [n for n, _ in curve(client, run, "train/total")] == [10, 20, 30, 40, 50]


def test_a_later_launch_delivers_what_an_earlier_one_could_not(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    launch(run_info(runs / "anna"), step(10), validation(10), observer=observer_of(tracking_uri=dead_address()))
    launch(run_info(runs / "anna", first_step=10), ENDED, attempt=2)
    client, run = only_run(runs)
    assert curve(client, run, "train/total") == [(10, 0.5)] and curve(client, run, "validation/score") == [(10, 0.7)]


def test_a_half_made_store_is_not_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(OSError, match="no space left"):
        prepare_sqlite(f"sqlite:///{tmp_path}/mlflow.db")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.spec
def test_a_real_server_gets_the_same(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")  # a busy machine is not what is tested
    with server(tmp_path, empty_store) as address:
        records = step(10), validation(10), step(20), ENDED
        launch(run_info(tmp_path / "anna"), *records, observer=observer_of(tracking_uri=address))
        client = client_of(address)
        (run,) = client.search_runs([client.get_experiment_by_name("voices").experiment_id])
        assert curve(client, run, "train/total") == [(10, 0.5), (20, 0.5)] and run.info.status == "FINISHED"
        assert files(client, run, "samples") == ["samples/step_00000010.wav"]
        assert run.info.artifact_uri.startswith("mlflow-artifacts:")


class server:
    """`mlflow server` on the loopback, with one worker."""

    def __init__(self, folder: Path, store: Path) -> None:
        self.folder, self.address = folder, dead_address()
        shutil.copyfile(store, folder / "server.db")

    def __enter__(self) -> str:
        port = self.address.rsplit(":", 1)[1]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{self.folder}/server.db",
             "--artifacts-destination", str(self.folder / "kept"), "--host", "127.0.0.1", "--port", port,
             "--workers", "1"],
            cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{self.address}/health", timeout=10):
                    return self.address
            except OSError:  # not yet
                pass
            assert self.process.poll() is None, "the server ended"
            time.sleep(0.1)
        raise TimeoutError("the server did not start")

    def __exit__(self, *_: object) -> None:
        os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait(30)


# -- where the store is -----------------------------------------------------------------------------------------------


def test_runs_beside_each_other_share_their_folders_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert store_home(Path("output/run-1")) == store_home(Path("output/run-2")) == tmp_path / "output"
    assert store_home(Path("output")) == tmp_path / "output"  # nothing appears in the working folder itself
    assert store_home(Path("/output")) == Path("/output")
    assert ui_command(Path("output/run-1")) == "mlflow ui --backend-store-uri sqlite:///output/mlflow.db"
    assert ui_command(Path("output"), "http://127.0.0.1:5000") is None


def test_an_address_beats_the_environment_and_that_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert store_uri(Path("output")) == f"sqlite:///{tmp_path}/output/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://environment:5000")
    assert store_uri(Path("output")) == "http://environment:5000"
    assert store_uri(Path("output"), "http://given:5000") == "http://given:5000"


# -- moved, and copied ------------------------------------------------------------------------------------------------


def forget_artifact_places() -> None:
    """Another launch is another process. MLflow takes seconds to import, and every test process reads this file."""
    from mlflow.tracking._tracking_service.utils import _artifact_repos_cache as by_run

    by_run.clear()


def launches_before_and_after(folder: Path, change: Callable[[Path, Path], object]) -> Path:
    """A run with pictures in `folder`/a; then `change(a, b)`, and the run goes on in b, which is returned."""
    before, after = folder / "a", folder / "b"
    launch(run_info(before / "anna"), step(10), validation(10), ENDED)
    change(before, after)
    forget_artifact_places()
    info = run_info(after / "anna", first_step=10)
    launch(info, step(20), validation(20), ENDED, attempt=2)
    return after


@pytest.fixture
def folder(empty_store: Path, tmp_path: Path) -> Path:
    (tmp_path / "a").mkdir()
    shutil.copyfile(empty_store, tmp_path / "a" / "mlflow.db")
    return tmp_path


def test_a_run_that_was_moved_with_its_store_goes_on_as_one_in_the_new_place(folder: Path) -> None:
    runs = launches_before_and_after(folder, shutil.move)
    client, run = only_run(runs)
    assert curve(client, run, "train/total") == [(10, 0.5), (20, 0.5)]
    assert files(client, run, "samples") == ["samples/step_00000010.wav", "samples/step_00000020.wav"]
    assert run.info.artifact_uri.startswith((runs / "mlflow-artifacts").as_uri()) and not (folder / "a").exists()
    assert run.data.tags["run_directory"] == str(runs / "anna")


@pytest.mark.slow
def test_a_copy_of_all_writes_into_its_own_store_and_folder(folder: Path) -> None:
    runs = launches_before_and_after(folder, shutil.copytree)
    client, run = only_run(runs)
    assert files(client, run, "samples") == ["samples/step_00000010.wav", "samples/step_00000020.wav"]
    forget_artifact_places()
    client, run = only_run(folder / "a")
    assert files(client, run, "samples") == ["samples/step_00000010.wav"]
    assert curve(client, run, "train/total") == [(10, 0.5)]


def test_a_copied_run_in_the_same_store_is_a_run_of_its_own(runs: Path) -> None:
    launch(run_info(runs / "anna"), step(10), ENDED)
    shutil.copytree(runs / "anna", runs / "bert")
    launch(run_info(runs / "bert", first_step=10), step(20), ENDED, attempt=2)
    client = client_of(f"sqlite:///{runs}/mlflow.db")
    found = client.search_runs([client.get_experiment_by_name("voices").experiment_id])
    assert {run.info.run_name: curve(client, run, "train/total") for run in found} == {
        "anna": [(10, 0.5)], "bert": [(10, 0.5), (20, 0.5)]
    }  # fmt: skip


def test_a_run_that_was_moved_within_its_folder_goes_on_as_one(runs: Path) -> None:
    launch(run_info(runs / "anna"), step(10), ENDED)
    shutil.move(runs / "anna", runs / "anna2")
    launch(run_info(runs / "anna2", first_step=10), step(20), ENDED, attempt=2)
    client, run = only_run(runs)
    assert curve(client, run, "train/total") == [(10, 0.5), (20, 0.5)]


def test_artifacts_that_somebody_keeps_elsewhere_stay_there(runs: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "shared" / "mlflow-artifacts"
    elsewhere.mkdir(parents=True)
    uri = f"sqlite:///{runs}/mlflow.db"
    client_of(uri).create_experiment("voices", artifact_location=elsewhere.as_uri())
    follow_move(uri)
    assert client_of(uri).get_experiment_by_name("voices").artifact_location == elsewhere.as_uri()


SECRET_ADDRESSES = ("//me:secret@HOST", "//HOST/secret/api", "//HOST/api?key=secret", "//HOST/#secret")


@pytest.mark.parametrize("address", SECRET_ADDRESSES)
def test_no_part_of_an_address_that_may_be_secret_is_kept_or_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, address: str
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    host = dead_address().removeprefix("http://")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http:" + address.replace("HOST", host))
    observer = observer_of()
    with caplog.at_level(logging.INFO, "tacotron2"):
        launch(run_info(tmp_path / "anna"), step(10), ENDED, observer=observer)
    assert "can't be reached" in caplog.text and host in caplog.text
    written = [path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file()]
    assert not [text for text in [*written, caplog.text, json.dumps(observer._state)] if "secret" in text]
