"""What a search tells its observers, as their tests need it."""

from pathlib import Path
from typing import Any

from monitoring.observer import RunInfo
from run_directory.records import Event
from smart_tuner.monitors.news import END, TRIAL
from support.observed_run import run_info

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


def told(observer: Any, folder: Path, *events: Event) -> None:
    observer.on_start(study_run(folder))
    for event in events:
        observer.on_record(event)
    observer.close()
