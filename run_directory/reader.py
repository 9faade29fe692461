"""What a run directory tells, however it was left: killed, full of NaN, half lines, nothing recorded yet."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite, nan
from pathlib import Path
from typing import Any

import yaml

from run_directory.metrics_log import without_superseded

SAMPLE_FILE = re.compile(r"step_(\d{8})_(\d+)\.(wav|png)")
Record = dict[str, Any]


@dataclass(frozen=True)
class FileProblem:
    """A file of a run that could not be read, or not as a whole."""

    name: str
    detail: str
    is_missing: bool = False

    def __str__(self) -> str:
        return f"{self.name}: {self.detail}"


@dataclass(frozen=True)
class Run:
    """A run as its files tell it; what is missing is empty."""

    directory: Path
    steps: list[Record]  # training, each step once
    evals: list[Record]
    events: list[Record]  # in the order they happened
    info: Record  # run.json
    hparams: Record
    sounds: Mapping[int, Mapping[int, Path]]  # step -> number of the text -> wav
    pictures: Mapping[int, Mapping[int, Path]]  # mels, gate and alignment
    alignments: Mapping[int, Mapping[int, Path]]
    problems: tuple[FileProblem, ...]

    @property
    def last_time(self) -> float | None:
        """Seconds since the epoch of the newest record."""
        times = [number(lines[-1].get("time")) for lines in (self.steps, self.evals, self.events) if lines]
        return max((t for t in times if isfinite(t)), default=None)

    @property
    def best(self) -> Record | None:
        """The newest validation that was the best at its time."""
        return next((e for e in reversed(self.evals) if e.get("is_best")), None)

    def texts(self, step: int) -> list[Record]:
        """What the samples of a validation say: `text` and `stop_reason` of each. [] where it was not kept."""
        try:
            content = json.loads((self.directory / "samples" / f"step_{step:08d}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return []
        return [entry for entry in content if isinstance(entry, dict)] if isinstance(content, list) else []


def number(value: object) -> float:
    """As it is; NaN for what is no number."""
    return float(value) if isinstance(value, int | float) else nan


def read_run(directory: Path) -> Run:
    problems: list[FileProblem] = []
    metrics = _read_lines(directory / "metrics.jsonl", problems)
    sound = [line for line in metrics if _is_rewind(line) or _is_record(line)]
    recorded = without_superseded(sound)
    samples = _sample_files(directory / "samples")
    return Run(
        directory,
        steps=[line for line in recorded if line["type"] == "step"],
        evals=[line for line in recorded if line["type"] == "eval"],
        events=[line for line in _read_lines(directory / "events.jsonl", problems) if _is_event(line)],
        info=read_mapping(directory / "run.json", problems),
        hparams=read_mapping(directory / "hparams.yaml", problems),
        sounds=samples.get("wav", {}),
        pictures=samples.get("png", {}),
        alignments=_sample_files(directory / "alignments").get("png", {}),
        problems=tuple(problems),
    )


def _read_lines(path: Path, problems: list[FileProblem]) -> list[Record]:
    """Every whole line that is an object. A last line without its end is still being written, and no problem."""
    try:
        content = path.read_bytes()
    except OSError as error:
        problems.append(FileProblem(path.name, error.strerror or str(error), isinstance(error, FileNotFoundError)))
        return []
    lines, n_bad = [], 0
    for line in content.split(b"\n")[:-1]:
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            entry = None
        if isinstance(entry, dict):
            lines.append(entry)
        else:
            n_bad += 1
    if n_bad:
        problems.append(FileProblem(path.name, f"{n_bad} unreadable lines"))
    return lines


def _is_rewind(line: Record) -> bool:
    return line.get("type") == "rewind" and isinstance(line.get("to_step"), int)


def _is_record(line: Record) -> bool:
    is_known = line.get("type") in ("step", "eval")
    return is_known and isinstance(line.get("step"), int) and isinstance(line.get("losses"), dict)


def _is_event(line: Record) -> bool:
    return isinstance(line.get("step"), int) and isinstance(line.get("kind"), str)


def read_mapping(path: Path, problems: list[FileProblem]) -> Record:
    """A JSON or YAML file that holds one object. {} where it is missing or damaged, which `problems` then says."""
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError) as error:
        detail = error.strerror if isinstance(error, OSError) else str(error).partition("\n")[0]
        problems.append(FileProblem(path.name, detail or str(error), isinstance(error, FileNotFoundError)))
        return {}
    return content if isinstance(content, dict) else {}


def _sample_files(folder: Path) -> dict[str, dict[int, dict[int, Path]]]:
    """suffix -> step -> number of the text -> file"""
    found: dict[str, dict[int, dict[int, Path]]] = {}
    for path in sorted(folder.glob("step_*")):
        if match := SAMPLE_FILE.fullmatch(path.name):
            found.setdefault(match[3], {}).setdefault(int(match[1]), {})[int(match[2])] = path
    return found
