"""Telegram: the start, regular reports with the newest alignment, alerts, the end; in English or Russian.

Token and chat come from the environment alone. The token is part of every address of Telegram's interface, so no text
of an error leaves `TelegramClient` with it.
"""

import asyncio
import io
import logging
import os
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf, nan
from pathlib import Path
from typing import Any, Literal

from common.durations import Pace, duration
from common.log import LOG
from common.translations import language_of
from common.yaml_file import read_own_yaml
from monitoring import plots
from monitoring.event_words import event_kind, event_message
from monitoring.observer import ObserverOff, RunInfo
from run_directory.records import EvalRecord, Event, Record, StepRecord
from run_directory.run_info import read_run_info

TOKEN, CHAT, BASE = "TELEGRAM_BOT_TOKEN", "TELEGRAM_CHAT_ID", "TELEGRAM_API_BASE"
PUBLIC_BASE = "https://api.telegram.org"
TEXTS = Path(__file__).with_suffix(".yaml")
NO_ALERTS = frozenset({"saved", "started", "resumed", "reduction", "ended", "crashed"})
ALERT_EVERY_S = 60.0  # what happens in between comes in one message
CAPTION, MESSAGE = 1024, 4096  # characters that Telegram takes
REQUEST_S = 5.0
ATTEMPTS, FIRST_PAUSE_S, LONGEST_PAUSE_S = 4, 1.0, 30.0
LAST_ATTEMPTS = 2  # once the run is over
QUIET_S = 60.0  # after attempts in vain

Language = Literal["auto", "en", "ru"]


@dataclass(frozen=True)
class Account:
    """Who reports to whom."""

    token: str = field(repr=False)
    chat: str
    base: str = PUBLIC_BASE


def account_from(environment: Mapping[str, str]) -> Account | None:
    """None, and one line that says why, where the environment holds no usable token and chat."""
    token, chat = environment.get(TOKEN, "").strip(), environment.get(CHAT, "").strip()
    if not token:
        LOG.info("no Telegram messages: %s is not set (telegram_monitoring=False hides this line)", TOKEN)
        return None
    if not re.fullmatch(r"\d+:[\w-]{20,}", token):
        LOG.warning("no Telegram messages: %s is not a bot's token, digits:letters, as @BotFather gives it", TOKEN)
        return None
    if not re.fullmatch(r"-?\d+|@\w+", chat):
        problem = f"is {chat!r}" if chat else "is not set"
        LOG.warning("no Telegram messages: %s %s; it must be a chat's number, or @name of a channel", CHAT, problem)
        return None
    return Account(token, chat, environment.get(BASE, "").rstrip("/") or PUBLIC_BASE)


class Undelivered(Exception):
    """A message that did not get through; its text is free of the token."""

    def __init__(self, text: str, *, pause_s: float = QUIET_S) -> None:
        super().__init__(text)
        self.pause_s = pause_s


class TelegramClient:
    """Delivers messages to one chat, with a few attempts. Lives in one thread, where it owns an event loop."""

    def __init__(self, account: Account, closing: threading.Event, *, pause_s: float) -> None:
        for name in ("telegram", "httpx", "httpcore"):  # they log addresses, which hold the token
            logging.getLogger(name).setLevel(logging.WARNING)
        os.environ.setdefault("PTB_TIMEDELTA", "true")  # the library's way to come; it warns of the other
        from telegram import Bot
        from telegram.request import HTTPXRequest

        self._account, self._closing, self._pause_s = account, closing, pause_s
        self._runner = asyncio.Runner()
        self._request = HTTPXRequest(
            connection_pool_size=1,
            connect_timeout=REQUEST_S,
            read_timeout=REQUEST_S,
            write_timeout=REQUEST_S,
            media_write_timeout=2 * REQUEST_S,
        )
        self._bot = Bot(account.token, base_url=f"{account.base}/bot", request=self._request)

    def send(self, text: str, *, picture: bytes | None = None) -> None:
        """Undelivered where a while may help; ObserverOff where nothing will."""
        from telegram.error import BadRequest, Forbidden, InvalidToken, TelegramError
        from tenacity import Retrying, retry_if_exception, sleep_using_event

        attempts = Retrying(
            retry=retry_if_exception(_is_passing),
            wait=self._wait_s,
            stop=lambda state: state.attempt_number >= (LAST_ATTEMPTS if self._closing.is_set() else ATTEMPTS),
            sleep=sleep_using_event(self._closing),
            reraise=True,
        )
        try:
            attempts(self._send_once, text, picture)
        except (InvalidToken, Forbidden, BadRequest) as error:
            self.close()
            raise ObserverOff(f"Telegram refuses: {self._redacted(error)}; see {TOKEN} and {CHAT}") from None
        except TelegramError as error:
            raise Undelivered(self._redacted(error), pause_s=max(_asked_pause_s(error), QUIET_S)) from None

    def _wait_s(self, state: Any) -> float:
        """As long as Telegram asks for, else twice as long after each attempt."""
        asked_s = _asked_pause_s(state.outcome.exception())
        return asked_s or self._pause_s * 2 ** (state.attempt_number - 1)

    def _send_once(self, text: str, picture: bytes | None) -> None:
        if picture is None:
            self._runner.run(self._bot.send_message(self._account.chat, text[:MESSAGE]))
        else:
            self._runner.run(self._bot.send_photo(self._account.chat, picture, caption=text[:CAPTION]))

    def _redacted(self, error: Exception) -> str:
        text = str(error) or type(error).__name__
        return text.replace(self._account.token, "***")

    def close(self) -> None:
        self._runner.run(self._request.shutdown())
        self._runner.close()


def _asked_pause_s(error: BaseException | None) -> float:
    """How long Telegram wants to be left alone; 0 where it doesn't say."""
    from telegram.error import RetryAfter

    if not isinstance(error, RetryAfter):
        return 0.0
    asked: Any = error.retry_after  # a timedelta, or seconds where the user's PTB_TIMEDELTA says so
    return float(asked.total_seconds() if hasattr(asked, "total_seconds") else asked)


def _is_passing(error: BaseException) -> bool:
    """Whether another attempt soon may get through."""
    from telegram.error import BadRequest, NetworkError, RetryAfter

    if isinstance(error, RetryAfter):
        return _asked_pause_s(error) <= LONGEST_PAUSE_S
    return isinstance(error, NetworkError) and not isinstance(error, BadRequest)


@dataclass
class Alert:
    """One kind of event since the last message."""

    first: int
    last: int
    message: str
    n: int = 1


class TelegramObserver:
    """Reports every so many steps; alerts at once, but merged where they come faster than once a minute."""

    def __init__(
        self,
        account: Account,
        *,
        every: int,
        language: Language,
        closing: threading.Event,
        pause_s: float = FIRST_PAUSE_S,
    ) -> None:
        self._account, self._every, self._closing = account, every, closing
        self._language, self._pause_s = language, pause_s
        self._alerts: dict[str, Alert] = {}
        self._latest: EvalRecord | None = None
        self._due: StepRecord | None = None
        self._best, self._best_step = inf, 0
        self._has_warned = False
        self._quiet_until = self._next_alert = 0.0

    def on_start(self, run: RunInfo) -> None:
        self._spoken_language = language_of(os.environ) if self._language == "auto" else self._language
        self._texts = read_own_yaml(TEXTS)[self._spoken_language]
        self._run, self._name = run, run.directory.resolve().name
        self._pace, self._began = Pace(run.first_step), time.monotonic()
        self._reported = run.first_step
        self._client = TelegramClient(self._account, self._closing, pause_s=self._pause_s)

    def on_record(self, record: Record) -> None:
        if isinstance(record, EvalRecord):
            self._latest = record
            if record.is_best:
                self._best, self._best_step = record.score, record.step
        self._report_if_due()  # the validation of a step comes after its losses
        if isinstance(record, StepRecord):
            self._on_step(record)
        elif isinstance(record, Event):
            self._on_event(record)
        if self._alerts and time.monotonic() >= self._next_alert:
            self._send_alerts(record.step)

    def close(self) -> None:
        self._report_if_due()
        if self._alerts:
            self._send_alerts(max(alert.last for alert in self._alerts.values()))
        self._client.close()

    # -- what is said -----------------------------------------------------------------------------------------

    def _on_step(self, record: StepRecord) -> None:
        self._pace.update(record.step)
        if record.step // self._every != self._reported // self._every:
            self._reported, self._due = record.step, record

    def _report_if_due(self) -> None:
        record, self._due = self._due, None
        if record is None:
            return
        text = self._say(
            "report",
            step=record.step,
            total=self._run.total_steps or "?",
            epoch=record.epoch,
            loss=record.losses.get("total", nan),
            mel=record.losses.get("mel_post", nan),
            grad_norm=record.grad_norm,
            spoken=self._spoken(),
            pace=self._pace.seconds_per_step or record.step_s,
            left=self._pace.eta(self._run.total_steps),
        )
        self._send(text, picture=_picture(self._latest))

    def _spoken(self) -> str:
        """Of the newest validation; "" where there was none."""
        latest = self._latest
        if latest is None:
            return ""
        facts = {"step": latest.step, "score": latest.score, "best": self._best, "best_step": self._best_step}
        if not latest.free_running:
            return self._say("judged", **facts) + "\n"
        return self._say("spoken", **facts, **latest.free_running) + "\n"

    def _on_event(self, event: Event) -> None:
        if event.kind == "started":
            self._send(self._started(event))
        elif event.kind == "ended":
            self._send(self._ended(event), picture=_picture(self._latest))
        elif event.kind in ("crashed", "gave_up"):
            reason = event_message(event.message, self._spoken_language)
            self._send(self._say("failed", step=event.step, reason=reason))
        elif event.kind not in NO_ALERTS:
            known = self._alerts.get(event.kind)
            first, n = (known.first, known.n + 1) if known else (event.step, 1)
            self._alerts[event.kind] = Alert(first, event.step, event.message, n)

    def _started(self, event: Event) -> str:
        run, hparams = self._run, self._run.hparams
        return self._say(
            "started",
            first_step=run.first_step,
            total=run.total_steps or "?",
            millions=event.data["parameters"] / 1e6,
            data=read_run_info(run.directory).get("data", "?"),
            **{name: event.data[name] for name in ("device", "training", "validation")},
            **{name: hparams[name] for name in ("batch_size", "learning_rate")},
        )

    def _ended(self, event: Event) -> str:
        signal, best, texts = event.data.get("signal"), event.data.get("best_score"), self._texts
        facts = {"best": best, "best_step": event.data.get("best_step")}
        return self._say(
            "finished" if signal is None else "interrupted",
            step=event.step,
            signal=signal,
            reason=texts["reasons"].get(event.message, event.message),
            duration=duration(time.monotonic() - self._began),
            best=texts["no_best"] if best is None else self._say("best", **facts),
        )

    def _send_alerts(self, step: int) -> None:
        lines = [self._say("alerts", step=step)]
        for kind, alert in self._alerts.items():
            words = {**vars(alert), "message": event_message(alert.message, self._spoken_language)}
            label = event_kind(kind, self._spoken_language)
            lines.append(self._say("once" if alert.n == 1 else "often", label=label, **words))
        if self._send("\n".join(lines)):
            self._alerts = {}
        self._next_alert = time.monotonic() + ALERT_EVERY_S

    def _say(self, name: str, **facts: Any) -> str:
        return str(self._texts[name].format(run=self._name, **facts))

    def _send(self, text: str, *, picture: bytes | None = None) -> bool:
        """Whether it got through. After attempts in vain nothing is tried for a while, except at the run's end."""
        if time.monotonic() < self._quiet_until and not self._closing.is_set():
            return False
        try:
            self._client.send(text, picture=picture)
            return True
        except Undelivered as error:
            self._quiet_until = time.monotonic() + error.pause_s
            if not self._has_warned:
                LOG.warning("Telegram can't be reached (%s); training goes on, alerts are kept for later", error)
            self._has_warned = True
            return False


def _picture(latest: EvalRecord | None) -> bytes | None:
    """The alignment of the first text, as PNG."""
    if latest is None or not latest.samples:
        return None
    sample, stream = latest.samples[0], io.BytesIO()
    plots.alignment_figure(sample.alignment, text=sample.symbols, title=sample.text).savefig(stream, format="png")
    return stream.getvalue()
