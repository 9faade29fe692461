"""Where messages go: the console, through rich where it is a terminal, and `train.log`."""

import logging
import sys
from pathlib import Path

from rich.console import Console
from rich.logging import RichHandler

from common.log import LOG
from common.redaction import without_secrets

QUIET_EVENTS = frozenset({"saved"})  # in events.jsonl and train.log, not on the console

CONSOLE = Console(stderr=True)


def redact(record: logging.LogRecord) -> bool:
    """A filter that keeps every line, but for the secrets of addresses in it."""
    record.msg, record.args = without_secrets(record.getMessage()), ()
    return True


def configure_logging(log_directory: Path | None = None) -> None:
    """Messages to the console (through rich, so that they don't tear the bar) and to `train.log`."""
    LOG.setLevel(logging.INFO)
    LOG.propagate = False
    for old in list(LOG.handlers):
        LOG.removeHandler(old)
        old.close()
    shown: logging.Handler
    if CONSOLE.is_terminal:
        shown = RichHandler(console=CONSOLE, show_path=False, show_level=False, markup=False, highlighter=None)
    else:
        shown = logging.StreamHandler(sys.stderr)
    shown.addFilter(lambda record: getattr(record, "kind", "") not in QUIET_EVENTS)
    shown.addFilter(redact)
    LOG.addHandler(shown)
    if log_directory is not None:
        log_directory.mkdir(parents=True, exist_ok=True)
        file = LogFile(log_directory / "train.log", encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        file.addFilter(redact)
        LOG.addHandler(file)


class LogFile(logging.FileHandler):
    """A full disk costs it lines, which is said once, and not the console a traceback for each of them."""

    is_refused = False

    def handleError(self, record: logging.LogRecord) -> None:
        if not self.is_refused:
            self.is_refused = True
            LOG.warning("%s can't be written: it lacks lines from here on, until there is room", self.baseFilename)
