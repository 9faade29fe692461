"""Telegram, against a stand-in server: what is said, when, in which language; and that the token stays secret."""

import logging
import string
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from hparams import HParams, create_hparams
from monitoring import telegram
from monitoring.observer import BackgroundObserver
from monitoring.setup import observers, telegram_observers
from monitoring.telegram import Account, TelegramObserver, account_from
from run_directory.records import Event, Record
from support.observed_run import STARTED, run_info, step, validation
from support.telegram_server import BROKEN, OK, TOKEN, UNAUTHORISED, TelegramServer, too_many

STARTS = Event(0, "started", "28.19 M parameters", STARTED)
ENDS = Event(2000, "ended", "max_steps", {"signal": None, "best_score": 0.61, "best_step": 1800})


@pytest.fixture
def server() -> Iterator[TelegramServer]:
    with TelegramServer() as standing:
        yield standing


def observer_of(server: TelegramServer, *, every: int = 1000, language: str = "en") -> TelegramObserver:
    account = Account(TOKEN, "42", server.base)
    return TelegramObserver(account, every=every, language=language, closing=threading.Event(), pause_s=0.01)


def watch(observer: TelegramObserver, directory: Path, *records: Record) -> None:
    observer.on_start(run_info(directory / "anna"))
    for record in records:
        observer.on_record(record)
    observer.close()


# -- what is said -----------------------------------------------------------------------------------------------------


def test_a_run_is_told_from_start_to_end(server: TelegramServer, tmp_path: Path) -> None:
    watch(observer_of(server), tmp_path, STARTS, step(1000), validation(1000), step(1010), ENDS)
    started, report, ended = server.messages
    assert "anna: training starts at step 0 of 2000" in started.text
    assert "28.19 M parameters on cpu, 720 training and 20 validation utterances" in started.text
    assert "anna: step 1000 of 2000" in report.text and "loss 0.500, mel 0.250" in report.text
    assert "score 0.700" in report.text and "alignment 0.83, stops by itself 75%" in report.text
    assert "finished at step 2000 (--max-steps reached)" in ended.text and "0.610 at step 1800" in ended.text
    assert {message.fields["chat_id"] for message in server.messages} == {"42"}


def test_a_report_shows_the_newest_alignment(server: TelegramServer, tmp_path: Path) -> None:
    watch(observer_of(server), tmp_path, step(500), validation(990), step(1000))
    (report,) = server.messages
    assert report.method == "sendPhoto" and report.picture is not None and report.picture.startswith(b"\x89PNG")


def test_without_validation_a_report_is_text(server: TelegramServer, tmp_path: Path) -> None:
    watch(observer_of(server), tmp_path, step(1000))
    (report,) = server.messages
    assert report.method == "sendMessage" and "alignment" not in report.text


def test_reports_come_at_the_interval(server: TelegramServer, tmp_path: Path) -> None:
    watch(observer_of(server, every=50), tmp_path, *(step(n) for n in range(10, 160, 10)))
    assert [message.text.split(",")[0] for message in server.messages] == [
        f"anna: step {n} of 2000" for n in (50, 100, 150)
    ]


def test_russian_is_spoken_where_it_is_asked_for(server: TelegramServer, tmp_path: Path) -> None:
    records = STARTS, validation(990), step(1000), Event(1005, "skipped", "the gradient"), ENDS
    watch(observer_of(server, language="ru"), tmp_path, *records)
    started, report, alert, ended = server.messages
    assert "обучение начинается с шага 0" in started.text and "выравнивание 0.83" in report.text
    assert "шаг пропущен: the gradient" in alert.text and "обучение закончено на шаге 2000" in ended.text


def test_auto_is_the_language_of_the_system(
    server: TelegramServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_ALL", "ru_RU.UTF-8")
    watch(observer_of(server, language="auto"), tmp_path, STARTS)
    watch(observer_of(server, language="en"), tmp_path, STARTS)
    assert [("обучение" in message.text, "training" in message.text) for message in server.messages] == [
        (True, False),
        (False, True),
    ]


def test_both_languages_say_the_same() -> None:
    texts = yaml.safe_load(telegram.TEXTS.read_text(encoding="utf-8"))

    def fields(value: object) -> object:
        if isinstance(value, dict):
            return {name: fields(item) for name, item in value.items()}
        return sorted(name for _, name, _, _ in string.Formatter().parse(str(value)) if name)

    assert fields(texts["en"]) == fields(texts["ru"])


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (Event(5, "ended", "signal", {"signal": 15, "best_score": None}), "interrupted at step 5 by signal 15, saved"),
        (Event(5, "crashed", "RuntimeError: no kernel"), "failed at step 5: RuntimeError: no kernel"),
    ],
)
def test_other_ends_are_told_as_such(server: TelegramServer, tmp_path: Path, event: Event, expected: str) -> None:
    watch(observer_of(server), tmp_path, event)
    assert expected in server.messages[0].text


# -- alerts -----------------------------------------------------------------------------------------------------------


def test_alerts_in_quick_succession_come_in_one_message(server: TelegramServer, tmp_path: Path) -> None:
    skips = [Event(n, "skipped", "the gradient was not finite") for n in range(100, 112)]
    watch(observer_of(server), tmp_path, *skips, Event(112, "rollback", "to step 90"), step(120))
    first, merged = server.messages
    assert first.text.endswith("step skipped: the gradient was not finite")
    assert "step skipped, 11 times in steps 101 to 111" in merged.text and "rolled back: to step 90" in merged.text


def test_events_of_every_day_are_no_alerts(server: TelegramServer, tmp_path: Path) -> None:
    watch(observer_of(server), tmp_path, *(Event(1, kind, "") for kind in ("saved", "resumed", "reduction")))
    assert server.messages == []


# -- a server that does not answer as it should -----------------------------------------------------------------------


def test_a_message_gets_through_a_server_that_fails_twice(server: TelegramServer, tmp_path: Path) -> None:
    server.answers = [BROKEN, BROKEN, OK]
    watch(observer_of(server), tmp_path, STARTS)
    assert server.attempts == 3 and len(server.messages) == 1


def test_telegrams_own_pause_is_kept(server: TelegramServer, tmp_path: Path) -> None:
    server.answers = [too_many(1), OK]
    began = time.monotonic()
    watch(observer_of(server), tmp_path, STARTS)
    assert server.messages[0].time - began >= 1


def test_a_long_pause_is_not_waited_for(
    server: TelegramServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.answers = [too_many(3000)]
    with caplog.at_level(logging.WARNING, "tacotron2"):
        watch(observer_of(server), tmp_path, STARTS, step(1000), step(2000))
    assert server.attempts == 1 and "Telegram can't be reached" in caplog.text


def test_alerts_outlast_an_outage(server: TelegramServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.answers = [BROKEN] * telegram.ATTEMPTS + [OK]
    monkeypatch.setattr(telegram, "QUIET_S", 0.0)
    watch(observer_of(server), tmp_path, Event(7, "skipped", "not finite"), Event(9, "not_saved", "weights"))
    (message,) = server.messages
    assert "step skipped: not finite" in message.text and "not saved: weights" in message.text


def test_a_server_that_only_fails_is_said_once(
    server: TelegramServer, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers = [BROKEN]
    monkeypatch.setattr(telegram, "QUIET_S", 0.0)
    with caplog.at_level(logging.WARNING, "tacotron2"):
        watch(observer_of(server), tmp_path, STARTS, step(1000), step(2000), ENDS)
    assert [r.getMessage() for r in caplog.records].count(caplog.records[0].getMessage()) == len(caplog.records) == 1
    assert server.attempts == 4 * telegram.ATTEMPTS


def test_a_refused_token_switches_telegram_off_and_is_not_shown(
    server: TelegramServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.answers = [UNAUTHORISED]
    queued = BackgroundObserver(observer_of(server))
    with caplog.at_level(logging.DEBUG):
        queued.on_start(run_info(tmp_path))
        for record in (STARTS, step(1000), ENDS):
            queued.on_record(record)
        queued.close()
    assert server.attempts == 1
    assert "Telegram is off for the rest of this run: Telegram refuses: Unauthorized" in caplog.text
    assert TOKEN not in caplog.text


def test_a_hanging_server_holds_up_neither_records_nor_the_end(server: TelegramServer, tmp_path: Path) -> None:
    server.answers = [None]
    queued = BackgroundObserver(observer_of(server))
    queued.on_start(run_info(tmp_path))
    began = time.perf_counter()
    for n in range(100):
        queued.on_record(Event(n, "skipped", "not finite"))
    assert time.perf_counter() - began < 1
    queued.close(timeout_s=0.2)
    assert time.perf_counter() - began < 5


# -- token and chat ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, "TELEGRAM_BOT_TOKEN is not set"),
        ({"TELEGRAM_BOT_TOKEN": "secret-nonsense", "TELEGRAM_CHAT_ID": "42"}, "is not a bot's token"),
        ({"TELEGRAM_BOT_TOKEN": TOKEN}, "TELEGRAM_CHAT_ID is not set"),
        ({"TELEGRAM_BOT_TOKEN": TOKEN, "TELEGRAM_CHAT_ID": "my chat"}, "TELEGRAM_CHAT_ID is 'my chat'"),
    ],
)
def test_what_lacks_is_said_in_one_line_without_the_token(
    environment: dict[str, str], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "tacotron2"):
        assert account_from(environment) is None
    (record,) = caplog.records
    assert said in record.getMessage() and not {TOKEN, "secret-nonsense"} & set(record.getMessage().split())
    assert record.levelno == (logging.WARNING if environment else logging.INFO)


def test_an_account_does_not_show_its_token() -> None:
    account = account_from({"TELEGRAM_BOT_TOKEN": TOKEN, "TELEGRAM_CHAT_ID": "-100123"})
    assert account is not None and account.token == TOKEN and TOKEN not in repr(account)
    assert account.base == "https://api.telegram.org"


def test_hyperparameters_reach_the_observer(monkeypatch: pytest.MonkeyPatch, tiny: Callable[..., HParams]) -> None:
    """telegram_monitoring, telegram_notification_interval and telegram_language."""

    def watchers(overrides: str) -> list[dict[str, object]]:
        every_one = telegram_observers(create_hparams(overrides))
        return [vars(watcher.observer) for watcher in every_one if isinstance(watcher, BackgroundObserver)]

    monkeypatch.setenv("TELEGRAM_BOT_TOKEN", TOKEN)
    monkeypatch.setenv("TELEGRAM_CHAT_ID", "42")
    (watcher,) = watchers("telegram_notification_interval=7,telegram_language=ru")
    assert watcher["_every"] == 7 and watcher["_language"] == "ru"
    for is_on in (False, True):
        queued = [w for w in observers(tiny(f"telegram_monitoring={is_on}")) if isinstance(w, BackgroundObserver)]
        assert ("TelegramObserver" in {type(watcher.observer).__name__ for watcher in queued}) is is_on
