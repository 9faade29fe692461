"""MLflow for a search: a parent run for the study, and a child for each trial of this machine that has ended."""

import logging
import os
import sqlite3
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any

from common.log import LOG
from common.redaction import hide_address
from monitoring.mlflow import ENVIRONMENT, SHOWN_ERROR
from monitoring.mlflow_store import artifacts_of, experiment_id, follow_move, local_store, prepare_sqlite, store_uri
from monitoring.observer import RunInfo
from run_directory.metrics_log import read_metrics
from run_directory.reader import read_run
from run_directory.records import Event, Record
from smart_tuner.monitors.news import END, TRIAL
from smart_tuner.trial_queue import trial_name

STUDY_TAG, TRIAL_TAG, PARENT_TAG = "study", "trial", "mlflow.parentRunId"
STATUS = {"done": "FINISHED", "time": "KILLED", "signal": "KILLED", "error": "FAILED"}


class StudyMLflow:
    """What can't be delivered now is kept, and tried again with the next trial and at the end."""

    def __init__(self, study_name: str, *, experiment: str, tracking_uri: str) -> None:
        self._study, self._experiment, self._tracking_uri = study_name, experiment, tracking_uri
        self._client: Any = None
        self._waiting: list[Event] = []
        self._has_warned = False

    def on_start(self, run: RunInfo) -> None:
        self._run = run
        self._uri = store_uri(run.directory.parent, self._tracking_uri)  # that of the run in -o
        self._deliver()

    def on_record(self, record: Record) -> None:
        if isinstance(record, Event):
            self._waiting.append(record)
            self._deliver()

    def close(self) -> None:
        self._deliver()
        if self._waiting:
            LOG.warning("MLflow lacks %d of the search's records; trials.csv has all", len(self._waiting))

    def _deliver(self) -> None:
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            if self._client is None:
                self._connect()
            while self._waiting:
                self._deliver_one(self._waiting[0])
                del self._waiting[0]
        except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError) as error:
            self._client = None
            if not self._has_warned:
                why = hide_address(" ".join(str(error).split()), self._uri)
                where = hide_address(self._uri, self._uri)
                LOG.warning("MLflow at %s can't be reached (%s); the search goes on", where, why[:SHOWN_ERROR])
            self._has_warned = True

    def _connect(self) -> None:
        from mlflow.tracking import MlflowClient

        logging.getLogger("alembic").setLevel(logging.WARNING)
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # pages for what _deliver says
        prepare_sqlite(self._uri)
        follow_move(self._uri)
        client = MlflowClient(tracking_uri=self._uri)
        store = local_store(self._uri)
        artifacts = None if store is None else artifacts_of(store).as_uri()
        self._experiment_id = experiment_id(client, self._experiment, artifacts=artifacts)
        self._parent = self._parent_run(client)
        self._client = client

    def _parent_run(self, client: Any) -> str:
        """The study's, which goes on, or a new one."""
        name, directory = self._study, str(self._run.directory.resolve())
        known = self._found(client, {STUDY_TAG: name, "study_directory": directory})
        if known is not None:
            client.update_run(known, status="RUNNING")
            return known
        tags = {STUDY_TAG: name, "study_directory": directory, "mlflow.note.content": f"`{self._run.command}`"}
        run = client.create_run(self._experiment_id, run_name=f"search {name}", tags=tags)
        return str(run.info.run_id)

    def _found(self, client: Any, tags: Mapping[str, str]) -> str | None:
        """The id of the run with these tags."""
        wanted = " and ".join(f"tags.`{name}` = {_quoted(value)}" for name, value in tags.items())
        found = client.search_runs([self._experiment_id], filter_string=wanted, max_results=1)
        return str(found[0].info.run_id) if found else None

    def _deliver_one(self, event: Event) -> None:
        if event.kind == TRIAL:
            self._deliver_trial(event.data, done=event.step)
        elif event.kind == END:
            self._client.set_tag(self._parent, "ended", event.message)
            for name in ("best_hparams.yaml", "trials.csv", "report.html"):
                if (path := self._run.directory / name).exists():
                    self._client.log_artifact(self._parent, str(path))
            self._client.set_terminated(self._parent, status=STATUS[event.message])

    def _deliver_trial(self, news: Mapping[str, Any], *, done: int) -> None:
        from mlflow.entities import Param

        name, directory = trial_name(news["number"]), Path(news["directory"])
        tags = {PARENT_TAG: self._parent, TRIAL_TAG: str(news["number"]), "ending": news["ending"]}
        child = self._found(self._client, {PARENT_TAG: self._parent, TRIAL_TAG: str(news["number"])})
        if child is None:
            child = str(self._client.create_run(self._experiment_id, run_name=name, tags=tags).info.run_id)
            params = [Param(key, str(value)) for key, value in news["params"].items()]
            self._client.log_batch(child, params=params)
        self._client.log_batch(child, metrics=self._metrics(news, directory))
        self._log_files(child, directory)
        self._client.set_terminated(child, status="FAILED" if news["is_failed"] else "FINISHED")
        if news["is_best"]:
            self._client.log_metric(self._parent, "best_value", news["value"], step=done)
            for key, value in news["params"].items():
                self._client.set_tag(self._parent, f"best.{key}", str(value))

    def _metrics(self, news: Mapping[str, Any], directory: Path) -> list[Any]:
        """The value and its parts, and each validation's score by its step."""
        from mlflow.entities import Metric

        now = [("value", news["value"]), *news["parts"].items()]
        found = [Metric(name, float(value), 0, 0) for name, value in now if isfinite(value)]
        for line in read_metrics(directory):
            if line["type"] == "eval" and isfinite(line["score"]):
                found.append(Metric("score", float(line["score"]), int(1000 * line["time"]), line["step"]))
        return found

    def _log_files(self, child: str, directory: Path) -> None:
        """The newest attention and sound of the first text."""
        run = read_run(directory)
        for files in (run.alignments, run.sounds):
            step = max((step for step, numbers in files.items() if 0 in numbers), default=None)
            if step is not None:
                self._client.log_artifact(child, str(files[step][0]), "samples")


def _quoted(value: str) -> str:
    """As MLflow's filters take a text; a directory may hold an apostrophe."""
    return f'"{value}"' if "'" in value else f"'{value}'"
