"""What a search tells its observers."""

from typing import Any

from run_directory.records import Record
from smart_tuner.monitors.news import StudyNews
from support.studies import random_study


class Listening:
    def __init__(self) -> None:
        self.heard: list[Record] = []

    def on_record(self, record: Record) -> None:
        self.heard.append(record)


def test_the_error_that_ended_a_search_is_told_without_its_secrets() -> None:
    listening: Any = Listening()
    news = StudyNews(random_study(3), None, [listening], n_trials=3)  # type: ignore[arg-type]
    news.end("error", "no answer of postgresql://anna:hunter2@host/voices")
    (event,) = listening.heard
    assert "no answer of postgresql://" in event.data["error"] and "hunter2" not in event.data["error"]
