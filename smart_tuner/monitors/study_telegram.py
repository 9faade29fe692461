"""Telegram for a search: its beginning, each new best with its attention, its end; in English or Russian."""

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.durations import duration
from common.log import LOG
from common.translations import Language, messages
from monitoring.observer import RunInfo
from monitoring.telegram import FIRST_PAUSE_S, Account, TelegramClient, Undelivered
from run_directory.reader import read_run
from run_directory.records import Event, Record
from smart_tuner.monitors.news import END, TRIAL
from tools import format_overrides


class StudyTelegram:
    """Says what changes; a trial that is not the best is silent."""

    def __init__(
        self,
        account: Account,
        study_name: str,
        *,
        language: Language,
        closing: threading.Event,
        pause_s: float = FIRST_PAUSE_S,
    ) -> None:
        self._account, self._name, self._closing, self._pause_s = account, study_name, closing, pause_s
        self._words = messages("search", language)
        self._has_warned = False
        self._quiet_until = 0.0

    def on_start(self, run: RunInfo) -> None:
        self._n_trials = run.total_steps or 0
        self._client = TelegramClient(self._account, self._closing, pause_s=self._pause_s)
        self._send(self._say("tell_started", done=run.first_step))

    def on_record(self, record: Record) -> None:
        if not isinstance(record, Event):
            return
        if record.kind == TRIAL and record.data["is_best"]:
            facts = {name: record.data[name] for name in ("number", "value", "done")}
            text = self._say("tell_best", **facts, values=format_overrides(record.data["params"]))
            self._send(text, picture=newest_alignment(Path(record.data["directory"])))
        elif record.kind == END:
            self._send(self._ended(record))

    def close(self) -> None:
        self._client.close()

    def _ended(self, event: Event) -> str:
        best: Mapping[str, Any] | None = event.data["best"]
        said = self._words["no_best"]
        if best is not None:
            said = f"{self._words['trial']} {best['number']}: {best['value']:.4f}, {format_overrides(best['params'])}"
        reason = self._words[f"end_{event.message}"].format(error=event.data["error"])
        return self._say(
            "tell_end", reason=reason, duration=duration(event.data["seconds"]), done=event.step, best=said
        )

    def _say(self, name: str, **facts: Any) -> str:
        return self._words[name].format(study=self._name, n=self._n_trials, **facts)

    def _send(self, text: str, *, picture: bytes | None = None) -> None:
        if time.monotonic() < self._quiet_until and not self._closing.is_set():
            return
        try:
            self._client.send(text, picture=picture)
        except Undelivered as error:
            self._quiet_until = time.monotonic() + error.pause_s
            if not self._has_warned:
                LOG.warning("Telegram can't be reached (%s); the search goes on", error)
            self._has_warned = True


def newest_alignment(directory: Path) -> bytes | None:
    """Of a trial's first text, as PNG. None where none was drawn, or it is gone."""
    drawn = read_run(directory).alignments
    step = max((step for step, files in drawn.items() if 0 in files), default=None)
    try:
        return None if step is None else drawn[step][0].read_bytes()
    except OSError:
        return None
