"""What the report says of a run: whether it lives, whether it is well, whether it aligns."""

import json
import time
from math import nan
from pathlib import Path

import pytest

from monitoring.report import verdicts
from run_directory.metrics_log import RunLog
from run_directory.paths import exclusive_lock
from run_directory.reader import read_run
from run_directory.records import Event
from support.written_runs import eval_record, step_record, write_run


@pytest.fixture
def log(tmp_path: Path) -> RunLog:
    return RunLog(tmp_path, attempt=1)


def test_a_run_is_running_until_it_ends_or_is_silent(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "a", texts=()))
    now = time.time()
    with exclusive_lock(run.directory, what_next=""):  # its process lives
        keys = [verdicts.state(run, now=now + s).key for s in (0, 290, 400)]
    assert keys == ["state_running", "state_running", "state_silent"]
    assert verdicts.state(run, now=now + 400).key == "state_killed"
    ended = read_run(write_run(tmp_path / "b", texts=(), is_ended=True))
    assert verdicts.state(ended, now=now + 400) == verdicts.HealthSign("plain", "state_ended", {"reason": "max_steps"})


@pytest.mark.parametrize("kind", ["crashed", "gave_up"])
def test_a_run_that_failed_is_not_shown_as_running(tmp_path: Path, kind: str) -> None:
    log = RunLog(write_run(tmp_path, texts=()), attempt=1)
    log.write(Event(400, kind, "why"))
    log.close()
    assert verdicts.state(read_run(tmp_path), now=time.time()).key == f"state_{kind}"


def test_a_resumed_run_has_not_ended(tmp_path: Path) -> None:
    log = RunLog(write_run(tmp_path, texts=(), is_ended=True), attempt=2)
    log.write(Event(400, "started", "again"))
    log.close()
    assert verdicts.state(read_run(tmp_path), now=time.time()).key == "state_running"


def test_a_run_whose_records_are_far_apart_may_be_silent_for_longer(tmp_path: Path) -> None:
    lines = [{"type": "step", "step": i, "losses": {}, "time": 1000.0 * i} for i in range(1, 5)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run = read_run(tmp_path)
    assert [verdicts.state(run, now=4000 + s).key for s in (2900, 3100)] == ["state_running", "state_killed"]


@pytest.mark.parametrize(
    ("records", "keys"),
    [
        ([step_record(100)], ["health_good"]),
        ([], ["health_nothing"]),
        ([step_record(100, total=nan)], ["health_not_finite"]),
        ([step_record(100), Event(100, "crashed", "")], ["health_down"]),
        ([step_record(100), Event(95, "skipped", "")], ["health_alert"]),
        ([step_record(100), Event(50, "skipped", "")], ["health_good"]),
        ([step_record(100), Event(99, "skipped", ""), Event(99, "save_failed", "")], ["health_alert"] * 2),
        ([step_record(100, data_wait=0.5)], ["health_waits"]),
        ([step_record(100), eval_record(90), eval_record(100, score=0.5, is_best=False)], ["health_worse"]),
        ([step_record(100), eval_record(90), eval_record(100, score=0.21, is_best=False)], ["health_good"]),
        (
            [step_record(100), *(eval_record(89 + i, score=0.21, is_best=i == 0) for i in range(11))],
            ["health_stale"],
        ),
    ],
)
def test_health(log: RunLog, tmp_path: Path, records: list, keys: list[str]) -> None:
    for record in records:
        log.write(record)
    log.close()
    found = verdicts.health(read_run(tmp_path), now=time.time())
    assert [verdict.key for verdict in found] == keys
    assert found[0].level == ("bad" if any(verdict.level == "bad" for verdict in found) else found[0].level)


@pytest.mark.parametrize(
    ("share", "key"), [(0.97, "aligns_yes"), (0.6, "aligns_partly"), (0.2, "aligns_no"), (nan, "aligns_no")]
)
def test_alignment_is_judged_by_the_newest_free_speech(log: RunLog, tmp_path: Path, share: float, key: str) -> None:
    log.write(eval_record(100, alignment=0.9))
    log.write(eval_record(200, alignment=share))
    log.close()
    assert verdicts.alignment(read_run(tmp_path)).key == key
