"""What a search tells Telegram: its beginning, each new best, its end; in two languages."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from monitoring.telegram import Account
from smart_tuner.monitors.study_telegram import StudyTelegram
from support.studies import write_trial
from support.study_news import ENDS, told, trial
from support.telegram_server import BROKEN, TOKEN, TelegramServer


@pytest.fixture
def server() -> Iterator[TelegramServer]:
    with TelegramServer() as standing:
        yield standing


def telegram_of(server: TelegramServer, language: str = "en") -> StudyTelegram:
    account = Account(TOKEN, "42", server.base)
    return StudyTelegram(account, "output", language=language, closing=threading.Event(), pause_s=0.01)


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
