"""MLflow: parameters, curves, pictures and sounds of a run; a replica of metrics.jsonl that catches up by itself."""

import json
import logging
import os
import sqlite3
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from audio.recordings import write_wav
from common.files import write_atomic
from common.log import LOG
from common.redaction import hide_address
from monitoring import plots
from monitoring.mlflow_store import (
    artifacts_of,
    existing_run,
    experiment_id,
    follow_move,
    local_store,
    prepare_sqlite,
    store_uri,
)  # fmt: skip
from monitoring.observer import RunInfo
from monitoring.sample_files import PictureSchedule
from monitoring.scalars import scalars_of
from run_directory.metrics_log import read_metrics
from run_directory.records import EvalRecord, Event, Record, StepRecord
from run_directory.run_info import read_run_info

FLUSH_EVERY_S = 20.0  # one delivery costs the interpreter, which training shares, some ten milliseconds
RETRY_EVERY_S = 300.0  # after a failure
SHOWN_ERROR = 200  # characters; a failed request repeats itself at length
ENVIRONMENT = {  # what a dead server may cost, unless the user says otherwise; its defaults add up to minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}
STATE_FILE = "mlflow.json"
DIRECTORY_TAG = "run_directory"


class MLflowObserver:
    """Delivers in batches. What it could not deliver it takes from metrics.jsonl later, in this launch or the next.

    `mlflow.json` in the run directory holds the id of the MLflow run and the steps that it has. The library is
    imported in the observer's thread: that takes a second or two.
    """

    def __init__(
        self, *, experiment: str, tracking_uri: str, images: bool, alignment_scalars: bool, picture_every: int
    ) -> None:
        self.experiment, self.tracking_uri = experiment, tracking_uri
        self.images, self.alignment_scalars, self._schedule = (
            images,
            alignment_scalars,
            PictureSchedule(every=picture_every),
        )
        self._client: Any = None  # None: not connected
        self._pending: list[tuple[str, Mapping[str, Any]]] = []  # ("step" or "eval", as in metrics.jsonl)
        self._known: dict[str, int] = {}  # by kind, the newest step that needs no delivery when it comes (again)
        self._pictures: list[EvalRecord] = []
        self._tags: dict[str, str] = {}
        self._status = "FAILED"  # until an event says how the run ended
        self._has_warned = False
        self._next_flush = 0.0

    # -- records ----------------------------------------------------------------------------------------------

    def on_start(self, run: RunInfo) -> None:
        self._run, self._uri = run, store_uri(run.directory, self.tracking_uri)
        self._state = _read_state(run.directory, experiment=self.experiment)
        self._flush()

    def on_record(self, record: Record) -> None:
        if isinstance(record, StepRecord):
            self._add("step", record)
        elif isinstance(record, EvalRecord):
            self._on_eval(record)
        else:
            self._on_event(record)
        if time.monotonic() >= self._next_flush:
            self._flush()

    def _add(self, kind: str, record: StepRecord | EvalRecord) -> None:
        """For the next delivery. What MLflow has, or will get from metrics.jsonl, is passed over."""
        if self._client is None or record.step <= self._known.get(kind, -1):
            return
        self._known.pop(kind, None)  # a later step back is one that training took, and is shown
        self._pending.append((kind, {**vars(record), "samples": (), "time": time.time()}))

    def _on_eval(self, record: EvalRecord) -> None:
        self._add("eval", record)
        if record.is_best:
            self._tags |= {"best.step": str(record.step), "best.score": f"{record.score:.4f}"}
        if self._schedule.is_due(record):
            self._take_pictures(record)

    def _take_pictures(self, record: EvalRecord) -> None:
        self._pictures = [*self._pictures[-2:], record]  # while nothing can be delivered, the newest ones

    def _on_event(self, event: Event) -> None:
        if event.kind == "ended":
            self._status = "FINISHED" if event.data.get("signal") is None else "KILLED"
            self._tags["ended"] = f"step {event.step}: {event.message}"
        elif event.kind in ("crashed", "gave_up"):
            self._tags["ended"] = f"step {event.step}: {event.message}"
        elif event.kind == "started":
            self._tags["mlflow.note.content"] = f"`{self._run.command}`\n\n{event.message}"

    def close(self) -> None:
        if (record := self._schedule.left()) is not None:
            self._take_pictures(record)
        if self._client is not None or not self._has_warned:  # a server that was dead a moment ago is not waited for
            self._flush(is_last=True)
        if self._client is None:
            LOG.warning("MLflow lacks the newest records; the next launch of this run delivers them")

    # -- delivery ---------------------------------------------------------------------------------------------

    def _flush(self, *, is_last: bool = False) -> None:
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        self._next_flush = time.monotonic() + FLUSH_EVERY_S
        try:
            if self._client is None:
                self._connect()
            self._deliver(is_last=is_last)
        except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError) as error:  # requests' errors are OSErrors
            self._on_failure(error)

    def _on_failure(self, error: Exception) -> None:
        """Once said; tried again later. What is lost here is in metrics.jsonl."""
        self._client, self._pending = None, []
        self._next_flush = time.monotonic() + RETRY_EVERY_S
        if not self._has_warned:
            self._has_warned = True
            where, why = (hide_address(text, self._uri) for text in (self._uri, " ".join(str(error).split())))
            text = "MLflow at %s can't be reached (%s); training goes on, metrics.jsonl has all"
            LOG.warning(text, where, why[:SHOWN_ERROR])

    def _connect(self) -> None:
        """Finds or makes the MLflow run, and reads from metrics.jsonl what it lacks."""
        from mlflow.tracking import MlflowClient

        logging.getLogger("alembic").setLevel(logging.WARNING)
        logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # it tells of every retry
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # pages for what _on_failure says
        prepare_sqlite(self._uri)
        follow_move(self._uri)
        client = MlflowClient(tracking_uri=self._uri)
        existing = existing_run(client, self._state["run_id"])
        if existing is None or _is_copy(self._run.directory, existing, uri=self._uri, given=self.tracking_uri):
            self._state["run_id"] = self._new_run(client)
            self._state["delivered"] = {}
        else:
            self._note_changes(client, existing)
        self._known = dict(self._state["delivered"])
        self._pending = []
        for line in read_metrics(self._run.directory):
            if line["step"] > self._state["delivered"].get(line["type"], -1):
                self._pending.append((line["type"], line))
                self._known[line["type"]] = line["step"]
        if self._has_warned:
            LOG.info("MLflow is reached again")
        self._client = client

    def _new_run(self, client: Any) -> str:
        from mlflow.entities import Param

        directory = self._run.directory
        store = local_store(self._uri)
        artifacts = None if store is None else artifacts_of(store).as_uri()  # a server knows its own place
        experiment = experiment_id(client, self.experiment, artifacts=artifacts)
        run_id = client.create_run(experiment, tags=tags_of(self._run), run_name=directory.resolve().name).info.run_id
        client.log_batch(run_id, params=[Param(name, _shown(value)) for name, value in self._run.hparams.items()])
        for name in ("hparams.yaml", "run.json"):
            if (directory / name).exists():
                client.log_artifact(run_id, str(directory / name))
        return str(run_id)

    def _note_changes(self, client: Any, existing: Any) -> None:
        """The run goes on, perhaps in another place. MLflow's parameters can't change: those that did become tags."""
        client.update_run(self._state["run_id"], status="RUNNING")
        client.set_tag(self._state["run_id"], DIRECTORY_TAG, str(self._run.directory.resolve()))
        for name, value in self._run.hparams.items():
            if existing.data.params.get(name) not in (None, _shown(value)):
                tag = f"changed.{name}", f"{_shown(value)} from step {self._run.first_step}"
                client.set_tag(self._state["run_id"], *tag)

    def _deliver(self, *, is_last: bool) -> None:
        from mlflow.entities import Metric, RunTag

        run_id, delivered = self._state["run_id"], dict(self._state["delivered"])
        metrics = []
        for kind, line in self._pending:
            delivered[kind] = max(line["step"], delivered.get(kind, -1))
            values = scalars_of(line, alignment=self.alignment_scalars)
            metrics += [Metric(name, v, int(1000 * line["time"]), line["step"]) for name, v in values.items()]
        tags = [RunTag(name, value) for name, value in self._tags.items()]
        self._client.log_batch(run_id, metrics=metrics, tags=tags)
        self._pending, self._tags, self._state["delivered"] = [], {}, delivered
        write_atomic(self._run.directory / STATE_FILE, json.dumps(self._state, indent=1) + "\n")
        while self._pictures:
            self._deliver_pictures(self._pictures[0])
            del self._pictures[0]
        if is_last:
            if (events := self._run.directory / "events.jsonl").exists():
                self._client.log_artifact(run_id, str(events))
            self._client.set_terminated(run_id, status=self._status)

    def _deliver_pictures(self, record: EvalRecord) -> None:
        """Of the first text: its attention as an image with a step, its sound as a file."""
        sample, run_id = record.samples[0], self._state["run_id"]
        if self.images:
            figure = plots.alignment_figure(sample.alignment, text=sample.symbols, title=sample.text)
            self._client.log_image(run_id, plots.figure_to_array(figure), key="alignment", step=record.step)
        if sample.wav is not None:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / f"step_{record.step:08d}.wav"
                write_wav(path, sample.wav, sample.sampling_rate)
                self._client.log_artifact(run_id, str(path), "samples")


def _read_state(directory: Path, *, experiment: str) -> dict[str, Any]:
    """Of mlflow.json; a new one where it tells of another experiment."""
    state: dict[str, Any] = {"experiment": experiment, "run_id": None, "delivered": {}}
    try:
        found = json.loads((directory / STATE_FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return state
    is_same = found.get("experiment") == experiment
    return {name: found.get(name, value) for name, value in state.items()} if is_same else state


def _is_copy(directory: Path, run: Any, *, uri: str, given: str) -> bool:
    """Whether the MLflow run is that of another run directory in this store, of which this one is a copy.

    Where the store was copied too, each has the run to itself. given: the tracking_uri of the settings.
    """
    other = Path(run.data.tags.get(DIRECTORY_TAG, directory))
    if store_uri(other, given) != uri:
        return False
    try:
        theirs = json.loads((other / STATE_FILE).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):  # it was moved here
        return False
    return other.resolve() != directory.resolve() and theirs.get("run_id") == run.info.run_id


def tags_of(run: RunInfo) -> dict[str, str]:
    """What MLflow's table of runs can be sorted by, beside parameters."""
    info = read_run_info(run.directory)
    tags = {
        "mlflow.source.name": next(iter(info.get("command", [])), ""),
        "mlflow.source.git.commit": info.get("git_revision") or "",
        DIRECTORY_TAG: str(run.directory.resolve()),
        "data": info.get("data", ""),
        **{f"version.{name}": version for name, version in info.get("versions", {}).items()},
    }
    return {name: text for name, text in tags.items() if text}


def _shown(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, Iterable) and not isinstance(value, str) else str(value)
