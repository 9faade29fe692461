"""Keeps report.html fresh while a run trains. Made to run behind a queue: training doesn't wait for it."""

import time
from pathlib import Path

from common.log import LOG
from common.translations import Language
from monitoring.observer import RunInfo
from monitoring.report.page import NAME, write_report
from run_directory.records import Record

MOST_SHARE = 0.01  # of a core


class ReportFile:
    """Writes the page at the first record, then with a record at most every `every_s` seconds, and at the end.

    Less often where writing takes long, as it shares the interpreter with training. It reads the run's files rather
    than keep records, so that a resumed run's page tells all of it.
    """

    def __init__(self, language: Language, *, every_s: float = 60.0) -> None:
        self.language, self.every_s = language, every_s
        self._due_at = 0.0
        self._is_refused = False

    def on_start(self, run: RunInfo) -> None:
        self._directory: Path = run.directory
        for half in run.directory.glob(f".{NAME}.*.tmp"):  # of a process that was killed
            half.unlink(missing_ok=True)

    def on_record(self, record: Record) -> None:
        if time.monotonic() >= self._due_at:
            self._write()

    def close(self) -> None:
        self._write()

    def _write(self) -> None:
        """A disk that refuses is told of once; it may have room again in a minute."""
        began = time.thread_time()
        try:
            write_report(self._directory, self.language)
            self._is_refused = False
        except OSError as error:
            if not self._is_refused:
                LOG.warning("report.html can't be written (%s); trying again every %.0f s", error, self.every_s)
            self._is_refused = True
        self._due_at = time.monotonic() + max(self.every_s, (time.thread_time() - began) / MOST_SHARE)
