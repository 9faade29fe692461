"""A bar with the remaining time on a terminal, plain lines elsewhere."""

import time
from collections.abc import Callable

from rich.progress import BarColumn, Progress, TextColumn

from common.durations import duration
from common.log import LOG
from monitoring.logging_setup import CONSOLE

PLAIN_EVERY_S = 10.0  # between lines about steps where there is no terminal


def counted_progress(label: str) -> Callable[[int, int], None]:
    """A `progress(done, total)` callback that shows a bar with ETA on a terminal, or a line every few seconds."""
    bar = Progress(
        TextColumn("{task.description}", markup=False),  # a file's name may hold braces and brackets
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TextColumn("{task.fields[eta]} left"),
        console=CONSOLE,
        transient=True,
    )
    task = bar.add_task(label, total=None, eta="?")
    began = time.monotonic()
    spoke_at = [began]

    def show(done: int, total: int) -> None:
        now = time.monotonic()
        eta = duration((now - began) / done * (total - done)) if done else "?"
        if CONSOLE.is_terminal:
            bar.update(task, total=total, completed=done, eta=eta)  # first: a bar that starts is drawn at once
            if not bar.live.is_started:
                bar.start()
            if done >= total:
                bar.stop()
        elif now - spoke_at[0] >= PLAIN_EVERY_S or done == total:
            spoke_at[0] = now
            LOG.info("%s %d/%d eta=%s", label, done, total, eta)

    return show
