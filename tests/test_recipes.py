"""The campaign of recipes: which cells, what is kept, what it concludes; and one tiny campaign for real."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks import recipes
from benchmarks.recipes import Result, best_together, merged, pace_of, read_results, report, with_steps
from hparams import resolve_hparams
from support.corpora import TINY

BASE = {"corpus": "c", "factor": "base", "choice": "", "settings": "", "seed": 1, "steps": 100}


def result(factor: str, choice: str, wer: float, seed: int = 1) -> Result:
    cell = {**BASE, "factor": factor, "choice": choice, "seed": seed}
    return Result(f"{factor}{choice}{seed}", cell, {"wer": wer, "mel_distance": 0.5})


@pytest.mark.parametrize("factor", recipes.FACTORS)
def test_every_choice_is_one_that_the_trainer_takes(factor: str) -> None:
    for choice in recipes.FACTORS[factor]:
        resolve_hparams(preset="small", overrides=merged(recipes.QUIET, with_steps(choice, 1000)))


def test_later_settings_win_and_lists_stay_whole() -> None:
    assert merged("a=1,b=[0:5,30:3]", "", "a=2,c=x") == "a=2,b=[0:5,30:3],c=x"
    assert with_steps("anneal_start={p40},reduction_schedule=[0:5,{p30}:3]", 200) == (
        "anneal_start=80,reduction_schedule=[0:5,60:3]"
    )


def test_the_best_together_leaves_out_what_was_no_better_than_the_base() -> None:
    results = [
        result("base", "", 0.4), result("base", "", 0.2, seed=2),
        result("ema", "ema_decay=0.9", 0.25), result("ema", "ema_decay=0.99", 0.28),
        result("rate", "learning_rate=1", 0.5), result("mmi", "use_mmi=True", 0.1),
    ]  # fmt: skip
    assert best_together(results, "c", 100) == "ema_decay=0.9,use_mmi=True"
    with pytest.raises(SystemExit, match="needs the base"):
        best_together(results, "c", 999)


def test_the_report_has_ranges_bold_gains_and_failures() -> None:
    failed = Result("x", {**BASE, "choice": "use_mmi=True"}, problem="train.py ended with 3: no such file")
    text = report(
        [result("base", "", 0.4), result("base", "", 0.2, seed=2), result("ema", "ema_decay=0.9", 0.25), failed]
    )
    assert "| base | as the preset has it | 2 | 30.0 (20.0 to 40.0) | 0.500 (0.500 to 0.500) |" in text
    assert "| ema | **ema_decay=0.9** | 1 | 25.0 | 0.500 |" in text
    assert "- `x` (use_mmi=True): train.py ended with 3: no such file" in text


def test_the_time_to_alignment_is_counted_in_training_alone() -> None:
    lines: list[dict[str, Any]] = [
        {"type": "step", "step": 10, "step_s": 6.0},
        {"type": "eval", "step": 10, "free_running": {"alignment": 0.5}},
        {"type": "step", "step": 20, "step_s": 12.0},
        {"type": "eval", "step": 20, "free_running": {"alignment": 0.95}},
        {"type": "eval", "step": 30, "free_running": {"alignment": 0.99}},
    ]
    assert pace_of(lines) == {"aligned_step": 20, "aligned_minutes": 3.0, "training_minutes": 3.0, "step_s": 9.0}
    assert "aligned_step" not in pace_of(lines[:2])


def test_a_line_that_was_cut_off_is_a_cell_not_done(tmp_path: Path) -> None:
    recipes.add_result(tmp_path, result("base", "", 0.4))
    with (tmp_path / "cells.jsonl").open("a") as file:
        file.write('{"key": "half')
    assert [each.key for each in read_results(tmp_path)] == ["base1"]


@pytest.mark.campaign
def test_a_tiny_campaign_trains_judges_fails_and_goes_on(
    corpus_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "corpus"
    shutil.copytree(corpus_folder / "wavs", folder / "wavs")
    for split, source in (("train", "train"), ("val", "val"), ("test", "val")):
        (folder / f"{split}.txt").write_text((corpus_folder / f"{source}.txt").read_text())
    tiny = merged(TINY, "validation_attention_analysis=True,validate_interval=2")
    command = ["run", str(tmp_path / "out"), "--corpus", f"tiny={folder}", "--steps", "2", "--preset", "",
               "--base", tiny, "--factors", "ema", "--seeds", "1", "-n", "1", "--judges", "none"]  # fmt: skip
    assert recipes.main(command) == 0
    assert "3/3 tiny-ema-" in capsys.readouterr().out
    cells = [json.loads(line) for line in (tmp_path / "out/cells.jsonl").read_text().splitlines()]
    assert len(cells) == 3 and all(cell["measures"]["best_step"] == 2 for cell in cells)
    distances = [cell["measures"]["mel_distance"] for cell in cells]
    assert distances[0] != distances[1]  # ema_decay=0 is no cell of its own: the base has no average
    assert "ema_decay=0.999" in (tmp_path / "out/report.md").read_text()
    assert recipes.main(command) == 0  # nothing is left to do
    assert "tiny-ema" not in capsys.readouterr().out
    assert len((tmp_path / "out/cells.jsonl").read_text().splitlines()) == 3
    broken = ["--base", merged(tiny, "training_files=absent.txt"), "--factors"]
    assert recipes.main([*command[: command.index("--base")], *broken, "--seeds", "1"]) == 0
    assert "train.py ended with" in capsys.readouterr().out
    checkpoint = next((tmp_path / "out/cells").glob("*/run/checkpoints/*2.pt"))
    assert recipes.main([*command, "--begin", str(checkpoint), "--factors"]) == 0
    (begun,) = [cell for cell in recipes.read_results(tmp_path / "out") if cell.cell["begin"]]
    assert begun.measures["mel_distance"] not in distances
