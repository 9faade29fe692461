"""MLflow: parameters, curves, pictures and sounds of a run; a replica of metrics.jsonl that catches up by itself."""

import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from audio.recordings import write_wav
from common.files import write_atomic
from common.log import LOG
from monitoring import plots
from monitoring.observer import RunInfo
from monitoring.sample_files import PictureSchedule
from monitoring.scalars import scalars_of
from run_directory.metrics_log import read_metrics
from run_directory.records import EvalRecord, Event, Record, StepRecord
from run_directory.run_info import read_run_info, without_password

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


def store_home(directory: Path) -> Path:
    """The folder of the default store: the run's parent, so that the runs beside each other share one.

    A run directly in the working folder, or in one that can't be written to, has its own.
    """
    directory = directory.resolve()
    parent = directory.parent
    is_closed = parent.exists() and not os.access(parent, os.W_OK)
    return directory if parent in (Path.cwd(), Path(parent.anchor)) or is_closed else parent


def store_uri(directory: Path, tracking_uri: str = "") -> str:
    """Where this run's MLflow data goes: as given, as MLFLOW_TRACKING_URI says, or to SQLite in `store_home`."""
    return tracking_uri or os.environ.get("MLFLOW_TRACKING_URI", "") or f"sqlite:///{store_home(directory)}/mlflow.db"


def ui_command(directory: Path, tracking_uri: str = "") -> str | None:
    """How to look at it; None where a server shows it."""
    uri = store_uri(directory, tracking_uri)
    if not uri.startswith("sqlite:///"):
        return None
    path = Path(uri.removeprefix("sqlite:///"))
    shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return f"mlflow ui --backend-store-uri sqlite:///{shown}"


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
        self._state = _read_state(run.directory, uri=without_password(self._uri), experiment=self.experiment)
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
        except (MlflowException, SQLAlchemyError, OSError) as error:  # requests' errors are OSErrors
            self._on_failure(error)

    def _on_failure(self, error: Exception) -> None:
        """Once said; tried again later. What is lost here is in metrics.jsonl."""
        self._client, self._pending = None, []
        self._next_flush = time.monotonic() + RETRY_EVERY_S
        if not self._has_warned:
            self._has_warned = True
            text = without_password(" ".join(str(error).split()))[:SHOWN_ERROR]
            where = without_password(self._uri)
            LOG.warning("MLflow at %s can't be reached (%s); training goes on, metrics.jsonl has all", where, text)

    def _connect(self) -> None:
        """Finds or makes the MLflow run, and reads from metrics.jsonl what it lacks."""
        from mlflow.tracking import MlflowClient

        logging.getLogger("alembic").setLevel(logging.WARNING)
        logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # it tells of every retry
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # pages for what _on_failure says
        prepare_sqlite(self._uri)
        client = MlflowClient(tracking_uri=self._uri)
        existing = _existing_run(client, self._state["run_id"])
        if existing is None:
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
        experiment = _experiment_id(client, self.experiment, artifacts=self._artifacts())
        run_id = client.create_run(experiment, tags=tags_of(self._run), run_name=directory.resolve().name).info.run_id
        client.log_batch(run_id, params=[Param(name, _shown(value)) for name, value in self._run.hparams.items()])
        for name in ("hparams.yaml", "run.json"):
            if (directory / name).exists():
                client.log_artifact(run_id, str(directory / name))
        return str(run_id)

    def _artifacts(self) -> str | None:
        """Beside a local store; a server knows its own place."""
        if not self._uri.startswith("sqlite:///"):
            return None
        return (Path(self._uri.removeprefix("sqlite:///")).resolve().parent / "mlflow-artifacts").as_uri()

    def _note_changes(self, client: Any, existing: Any) -> None:
        """The run goes on. MLflow's parameters can't change, so those that did become tags."""
        client.update_run(self._state["run_id"], status="RUNNING")
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


# -- the store ------------------------------------------------------------------------------------------------


def _read_state(directory: Path, *, uri: str, experiment: str) -> dict[str, Any]:
    """Of mlflow.json; a new one where it tells of another store or experiment."""
    state: dict[str, Any] = {"tracking_uri": uri, "experiment": experiment, "run_id": None, "delivered": {}}
    try:
        found = json.loads((directory / STATE_FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return state
    same = all(found.get(name) == state[name] for name in ("tracking_uri", "experiment"))
    return {**state, **found} if same else state


def _existing_run(client: Any, run_id: str | None) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        found = client.get_run(run_id) if run_id else None
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":  # a store that was emptied: begin anew
            raise
        return None
    return None if found is None or found.info.lifecycle_stage == "deleted" else found


def _experiment_id(client: Any, name: str, *, artifacts: str | None) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifact_location=artifacts))
        except MlflowException:  # a run beside this one was quicker
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    return str(found.experiment_id)


def prepare_sqlite(uri: str) -> None:
    """Makes a new SQLite store whole or not at all.

    MLflow sets it up in seconds of migrations, and one that was cut off in the middle never opens again.
    """
    if not uri.startswith("sqlite:///") or (path := Path(uri.removeprefix("sqlite:///"))).exists():
        return
    from mlflow.tracking import MlflowClient

    path.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="mlflow-"))
    copy = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        MlflowClient(tracking_uri=f"sqlite:///{folder}/new.db").search_experiments(max_results=1)
        shutil.copyfile(folder / "new.db", copy)
        _link(copy, path)
    finally:
        copy.unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)


def _link(source: Path, target: Path) -> None:
    """Gives the file its second name, unless a run beside this one was quicker."""
    try:
        os.link(source, target)
    except FileExistsError:
        return
    except OSError:  # a file system without hard links
        source.rename(target)


def tags_of(run: RunInfo) -> dict[str, str]:
    """What MLflow's table of runs can be sorted by, beside parameters."""
    info = read_run_info(run.directory)
    tags = {
        "mlflow.source.name": next(iter(info.get("command", [])), ""),
        "mlflow.source.git.commit": info.get("git_revision") or "",
        "run_directory": str(run.directory.resolve()),
        "data": info.get("data", ""),
        **{f"version.{name}": version for name, version in info.get("versions", {}).items()},
    }
    return {name: text for name, text in tags.items() if text}


def _shown(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, Iterable) and not isinstance(value, str) else str(value)
