"""What MLflow has of a search: a parent run and a child for each trial, once."""

from pathlib import Path

import pytest

from monitoring.mlflow_store import prepare_sqlite
from smart_tuner.monitors.study_mlflow import StudyMLflow
from support.studies import write_trial
from support.study_news import ENDS, told, trial
from support.trackers import dead_address

pytestmark = pytest.mark.filterwarnings("default")  # warnings of MLflow's dependencies are not ours to solve


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


@pytest.mark.slow
def test_searches_of_two_directories_are_two_even_beside_an_apostrophe(tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    prepare_sqlite(uri)
    for name in ("anna", "Anna's", "Anna's"):
        (tmp_path / name).mkdir(exist_ok=True)
        told(StudyMLflow("output", experiment="voices", tracking_uri=uri), tmp_path / name, ENDS)
    client = MlflowClient(tracking_uri=uri)
    runs = client.search_runs([client.get_experiment_by_name("voices").experiment_id])
    assert sorted(Path(run.data.tags["study_directory"]).parent.parent.name for run in runs) == ["Anna's", "anna"]


def test_a_dead_mlflow_is_said_once_and_holds_nothing_up(tmp_path: Path, caplog) -> None:
    observer = StudyMLflow("output", experiment="voices", tracking_uri=dead_address())
    told(observer, tmp_path, trial(0, tmp_path, is_best=True), ENDS)
    assert caplog.text.count("can't be reached") == 1 and "lacks 2 of the search's records" in caplog.text
