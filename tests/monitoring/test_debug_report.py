"""Diagnostic reports: what they hold, when they are written, and what they make of it in plain words."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hparams import HParams, create_hparams
from monitoring.debug_report import KEPT, DebugReport
from monitoring.hints import hints_of
from run_directory.metrics_log import read_metrics
from run_directory.records import Event, Record, StepRecord
from support.observed_run import FREE, run_info, step, validation
from support.runs import trained
from training.module_norms import module_norms, module_of

NORMS = {"encoder": {"gradient": 0.5, "weight": 7.0}, "postnet": {"gradient": 0.25, "weight": 3.0}}


def reports(directory: Path, *records: Record, every: int = 500, hparams: str = "") -> list[dict[str, Any]]:
    observer = DebugReport(every=every)
    observer.on_start(run_info(directory, hparams=hparams))
    for record in records:
        observer.on_record(record)
    observer.close()
    return [json.loads(path.read_text()) for path in sorted((directory / "debug").glob("*.json"))]


def test_reports_come_at_the_interval_and_at_the_end(tmp_path: Path) -> None:
    found = reports(tmp_path, *(step(n) for n in range(10, 1210, 10)))
    assert [report["step"] for report in found] == [500, 1000, 1200]
    assert [report["records"] for report in found] == [50, 50, 20]


def test_a_report_holds_what_happened_since_the_last_one(tmp_path: Path) -> None:
    first = [step(10, loss=1.0, grad_norm=3.0), step(20, loss=0.6, grad_norm=1.0, skipped=2, modules=NORMS)]
    then = [validation(20), step(30, loss=0.2), step(40, loss=0.4, skipped=1)]
    before, report = reports(tmp_path, *first, *then, every=20)
    assert report["losses"]["total"] == {
        "mean": pytest.approx(0.3), "before": pytest.approx(0.8), "change": pytest.approx(-0.625), "newest": 0.4,
    }  # fmt: skip
    assert report["skipped"] == {"now": 1, "all": 3} and report["modules"] == NORMS
    assert before["validation"]["step"] == 20
    assert report["validation"]["free_running"] == FREE and report["memory"]["peak"] > 1


def test_events_are_counted_and_the_newest_told(tmp_path: Path) -> None:
    events = [Event(n, "skipped", f"step {n}") for n in range(7)]
    (report,) = reports(tmp_path, *events, step(10))
    assert report["events"] == {"skipped": 7} and report["newest_events"][-1] == "6 skipped: step 6"


def test_the_text_holds_what_a_person_looks_for(tmp_path: Path) -> None:
    reports(tmp_path, step(500, modules=NORMS, data_wait=0.4), validation(500, free_running=FREE))
    text = (tmp_path / "debug" / "report_00000500.md").read_text()
    assert text.startswith("# Step 500 of 2000, epoch 33.33\n\n## Worth a look\n\n- 40% of the time is spent waiting")
    assert "| encoder | 0.5 | 7 |" in text and "| total | 0.5 | - | - | 0.5 |" in text


def test_a_report_is_strict_json_whatever_the_figures(tmp_path: Path) -> None:
    worst = {"encoder": {"gradient": float("nan"), "weight": float("inf")}}
    reports(tmp_path, step(500, loss=float("nan"), grad_norm=float("nan"), modules=worst))
    text = (tmp_path / "debug" / "report_00000500.json").read_text()
    report = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert report["gradient"] == {"mean": None, "largest": None} and report["losses"]["total"]["mean"] is None
    assert "not finite in the last step: gradient of encoder, weights of encoder" in report["hints"]


def test_only_the_last_reports_are_kept(tmp_path: Path) -> None:
    found = reports(tmp_path, *(step(n) for n in range(10, 10 * (KEPT + 5), 10)), every=10)
    assert len(found) == KEPT and found[-1]["step"] == 10 * (KEPT + 4)
    assert len(list((tmp_path / "debug").iterdir())) == 2 * KEPT


# -- hints ------------------------------------------------------------------------------------------------------------


def healthy(**more: Any) -> dict[str, Any]:
    report = {
        "step": 50000,
        "losses": {"total": {"mean": 0.4, "before": 0.5, "change": -0.2}, "mel_post": {"mean": 0.2}},
        "gradient": {"mean": 0.8, "largest": 1.5},
        "modules": NORMS,
        "speed": {"step_s": 0.5, "frames_per_s": 9000.0, "data_wait": 0.01, "padding": 0.1},
        "memory": {"peak": 900.0},
        "skipped": {"now": 0, "all": 0},
        "learning_rate": 1e-3,
        "validation": {"losses": {"mel_post": 0.25}, "free_running": {**FREE, "alignment": 0.9, "stop_rate": 1.0}},
    }
    return {**report, **more}


LOST = {"losses": {}, "free_running": {**FREE, "alignment": 0.2}}


@pytest.mark.parametrize(
    ("changed", "hparams", "said"),
    [
        ({"validation": LOST}, "", "guided attention has no weight, but free-running alignment is only 0.20"),
        ({"validation": LOST, "step": 100}, "no_dga=True", "guided attention has no weight"),
        ({"validation": LOST, "step": 9000}, "", "alignment is only 0.20 at step 9000: look at alignments/"),
        ({"validation": {"losses": {}, "free_running": {"alignment": 0.9, "stop_rate": 0.3}}}, "", "only 30% of the"),
        ({"skipped": {"now": 3, "all": 3}}, "", "3 steps were not taken"),
        ({"modules": {"postnet": {"gradient": 0.0, "weight": 1.0}}}, "", "no gradient reaches postnet"),
        ({"modules": {"postnet": {"gradient": None, "weight": 1.0}}}, "", "gradient of postnet, weights of nothing"),
        ({"gradient": {"mean": 30.0}}, "", "30 times grad_clip_thresh"),
        ({"losses": {"total": {"mean": 0.5, "before": 0.5, "change": 0.0}}}, "", "has not fallen"),
        ({"validation": {"losses": {"mel_post": 0.9}}}, "", "4.5 times that of training"),
        ({"speed": {"data_wait": 0.5, "padding": 0.1}}, "", "50% of the time is spent waiting for data"),
        ({"speed": {"data_wait": 0.0, "padding": 0.5}}, "", "50% of the frames are padding"),
        ({"memory": {"cuda_peak_share": 0.97}}, "", "memory was 97% full"),
    ],
)
def test_each_trouble_has_its_hint(changed: dict[str, Any], hparams: str, said: str) -> None:
    values = create_hparams(hparams or None).canonical()
    (hint,) = hints_of(healthy(**changed), values)
    assert said in hint


def test_a_healthy_run_gets_no_hint() -> None:
    assert hints_of(healthy(), create_hparams().canonical()) == []


# -- norms of modules -------------------------------------------------------------------------------------------------


def test_norms_are_those_of_all_parameters_of_a_module() -> None:
    model = torch.nn.ModuleDict({"encoder": torch.nn.Linear(2, 2), "postnet": torch.nn.Linear(3, 1)})
    model["encoder"](torch.ones(1, 2)).sum().backward()
    norms = module_norms(model)
    weights = torch.cat([p.detach().flatten() for p in model["encoder"].parameters()])
    gradients = torch.cat([p.grad.flatten() for p in model["encoder"].parameters()])
    assert norms["encoder"]["weight"] == pytest.approx(weights.norm().item())
    assert norms["encoder"]["gradient"] == pytest.approx(gradients.norm().item())
    assert norms["postnet"]["gradient"] == 0.0


def test_the_parts_of_the_decoder_are_told_apart() -> None:
    assert module_of("decoder.prenet.layers.0.weight") == "decoder.prenet"
    assert module_of("encoder.lstm.weight_ih_l0") == "encoder"


@pytest.mark.slow
def test_the_trainer_hands_over_norms_at_the_interval_only(tiny: Callable[..., HParams], tmp_path: Path) -> None:
    """debug_reporting and debug_report_interval."""
    for hparams, expected in (("debug_reporting=True,debug_report_interval=20", [20]), ("", [])):
        trainer = trained(tiny(hparams), tmp_path / str(len(hparams)), 30)
        with_norms = [r.step for r in trainer.records if isinstance(r, StepRecord) and r.modules]
        assert with_norms == expected
        assert [r["step"] for r in read_metrics(tmp_path / str(len(hparams))) if "modules" in r] == expected
