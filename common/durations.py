"""Durations as people read them, and how long a run still takes."""

import time


def duration(seconds: float) -> str:
    """90 -> '1m30s', 7200 -> '2h00m'."""
    s = int(seconds)
    if s >= 3600:
        return f"{s // 3600}h{s % 3600 // 60:02d}m"
    return f"{s // 60}m{s % 60:02d}s"


class Pace:
    """Seconds a step takes all in all, validation and saving included, as an exponential mean."""

    def __init__(self, first_step: int) -> None:
        self.step, self.time, self.seconds_per_step = first_step, time.monotonic(), 0.0

    def update(self, step: int) -> None:
        now = time.monotonic()
        if step > self.step:
            latest = (now - self.time) / (step - self.step)
            self.seconds_per_step = latest if not self.seconds_per_step else 0.9 * self.seconds_per_step + 0.1 * latest
            self.step, self.time = step, now

    def eta(self, total: int | None) -> str:
        return (
            "?" if total is None or not self.seconds_per_step else duration((total - self.step) * self.seconds_per_step)
        )
