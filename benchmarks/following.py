"""What a look at a run's `metrics.jsonl` costs, as a search looks: `python benchmarks/following.py`.

Runs of so many steps with one record each ten steps are written to a temporary folder. Processor time of one look: all
lines parsed again, the newest line alone (`MetricsFollower`), and where nothing has come. The median of 21.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from run_directory.metrics_log import MetricsFollower, RunLog, read_metrics
from run_directory.records import StepRecord

STEPS, EVERY, LOOKS = (3000, 30000, 75000), 10, 21


def record(step: int) -> StepRecord:
    """As the demo's trainer writes it."""
    names = ("gate", "guided_attention", "mel", "mel_post", "total")
    return StepRecord(
        step=step,
        epoch=step / 65,
        losses={name: 1 / (step + 3 + i) for i, name in enumerate(names)},
        grad_norm=1 / (step + 7),
        learning_rate=1e-3 / (1 + step / 3),
        frames_per_s=1e5 / (step + 7),
        step_s=1 / (step + 3),
        data_wait=1 / (step + 11),
        padding=1 / (step + 13),
    )


def median_ms(look: Callable[[], object], *, before: Callable[[], object] = lambda: None) -> float:
    """before: what happens ahead of every look and is not counted."""
    times = []
    for _ in range(LOOKS):
        before()
        began = time.process_time()
        look()
        times.append(time.process_time() - began)
    return 1000 * statistics.median(times)


def row(n_steps: int, folder: Path) -> str:
    """One of the table."""
    log = RunLog(folder, attempt=1)
    for step in range(EVERY, n_steps + 1, EVERY):
        log.write(record(step))
    n_bytes = (folder / "metrics.jsonl").stat().st_size * EVERY // n_steps
    again = median_ms(lambda: read_metrics(folder))
    follower = MetricsFollower(folder)
    follower.records()
    new = iter(range(n_steps + EVERY, n_steps + (1 + LOOKS) * EVERY, EVERY))
    newest = median_ms(follower.records, before=lambda: log.write(record(next(new))))
    nothing = median_ms(follower.records)
    log.close()
    return f"| {n_steps} | {n_bytes} | {again:.1f} ms | {newest:.2f} ms | {nothing:.3f} ms |"


def main() -> None:
    print("| steps so far | bytes a record | all again | the new line alone | nothing new |\n|---|---|---|---|---|")
    for n_steps in STEPS:
        with tempfile.TemporaryDirectory() as folder:
            print(row(n_steps, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
