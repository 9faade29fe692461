"""Keeps a report.html fresh while something runs. Made to run behind a queue: nobody waits for it."""

import time
from abc import ABC, abstractmethod
from pathlib import Path

from common.log import LOG
from common.translations import Language
from monitoring.observer import RunInfo
from monitoring.report.page import NAME, write_report
from run_directory.records import Record

MOST_SHARE = 0.01  # of a core


class FreshPage(ABC):
    """Writes a page at the first record, then with a record at most every `every_s` seconds, and at the end.

    Less often where writing takes long, as it shares the interpreter with what it reports. refusals: what a full disk,
    say, raises.
    """

    refusals: tuple[type[Exception], ...] = (OSError,)

    def __init__(self, *, every_s: float) -> None:
        self.every_s = every_s
        self._due_at = 0.0
        self._is_refused = False

    @abstractmethod
    def write_page(self) -> None: ...

    def on_record(self, record: Record) -> None:
        if time.monotonic() >= self._due_at:
            self._write()

    def close(self) -> None:
        self._write()

    def _write(self) -> None:
        """A disk that refuses is told of once; it may have room again with a later record."""
        began = time.thread_time()
        try:
            self.write_page()
            self._is_refused = False
        except self.refusals as error:
            if not self._is_refused:
                LOG.warning("%s can't be written (%s); trying again every %.0f s", NAME, error, self.every_s)
            self._is_refused = True
        self._due_at = time.monotonic() + max(self.every_s, (time.thread_time() - began) / MOST_SHARE)


class ReportFile(FreshPage):
    """Of a run. It reads the run's files rather than keep records, so that a resumed run's page tells all of it."""

    def __init__(self, language: Language, *, every_s: float = 60.0) -> None:
        super().__init__(every_s=every_s)
        self.language = language

    def on_start(self, run: RunInfo) -> None:
        self._directory: Path = run.directory
        for half in run.directory.glob(f".{NAME}.*.tmp"):  # of a process that was killed
            half.unlink(missing_ok=True)

    def write_page(self) -> None:
        write_report(self._directory, self.language)
