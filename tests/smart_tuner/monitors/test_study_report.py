"""study/report.html: the whole search in one file, in two languages; importances only where trials are enough."""

import re
from pathlib import Path

import optuna
import pytest
from optuna.distributions import FloatDistribution

from common.translations import messages
from smart_tuner.importances import LEAST_TRIALS, importances
from smart_tuner.monitors import study_report
from smart_tuner.monitors.parallel import parallel
from smart_tuner.monitors.results import best_yaml
from smart_tuner.monitors.study_report import StudyReportFile, render, why_best, write_study_report
from smart_tuner.study import best_trial, finished
from support.browser import HOSTILE, browser, opened  # noqa: F401
from support.studies import SPACE, random_study, write_trial


@pytest.fixture(scope="module")
def study() -> optuna.Study:
    return random_study(30)


def page(study: optuna.Study, directory: Path, language: str = "en") -> str:
    return render(study, directory, language, n_trials=40, now=1e9)


def test_the_page_tells_the_best_over_time_what_matters_and_what_it_cost(study, tmp_path: Path) -> None:
    best = best_trial(study)
    write_trial(tmp_path / f"trial_{best.number:05d}")
    text = page(study, tmp_path)
    assert "30 of 40 trials finished" in text and f"Trial {best.number}: value {best.value:.4f}" in text
    assert "best so far" in text
    assert text.count("<audio") == 1 and "data:audio/" in text and "data:image/webp" in text
    assert "It ran on another machine" in text, "the other best ones have no directory here"
    shown = re.findall(r'<td class="name"><code>(\w+)</code></td><td><div class="bar">', text)
    assert shown[0] == "learning_rate" and set(shown) == set(best.params)
    assert re.search(r"finished</td><td>\d+</td><td>\d+h", text) and re.search(r"diverged</td><td>\d+</td>", text)


def test_both_languages_say_it_all(study, tmp_path: Path) -> None:
    for language, said in (("en", "What it cost"), ("ru", "\u0427\u0435\u0433\u043e \u044d\u0442\u043e")):
        assert said in page(study, tmp_path, language)
    english, russian = messages("search", "en"), messages("search", "ru")
    places = {name: re.findall(r"{(\w+)", text) for name, text in english.items()}
    assert {name: sorted(re.findall(r"{(\w+)", text)) for name, text in russian.items()} == {
        name: sorted(found) for name, found in places.items()
    }


def test_everything_is_in_the_one_file_and_nothing_acts(study, tmp_path: Path, browser) -> None:  # noqa: F811
    write_trial(tmp_path / f"trial_{best_trial(study).number:05d}")
    hostile = random_study(25, name=HOSTILE)
    hostile.trials[0].params["x"] = HOSTILE
    for one, name in ((study, "a"), (hostile, "b")):
        path = write_study_report(one, tmp_path, "en", n_trials=30).rename(tmp_path / f"{name}.html")
        found = opened(browser, path)
        assert [m for m in found["console"] if m["level"] == "SEVERE"] == []
        assert [a for a in found["requested"] if not a.startswith(("data:", path.as_uri()))] == []
        assert browser.execute_script("return window.acted") is None


def test_few_trials_have_no_importances_and_the_page_says_so(tmp_path: Path) -> None:
    few = random_study(LEAST_TRIALS - 1)
    assert importances(finished(few)) == []
    text = page(few, tmp_path)
    assert f"Not shown: {LEAST_TRIALS - 1} trials" in text and 'class="bar"' not in text


def test_a_planted_inert_parameter_matters_next_to_nothing() -> None:
    found = {one.name: one for one in importances(finished(random_study(60, seed=1)))}
    assert found["learning_rate"].share > 0.5 and found["warmup_steps"].share < 0.1
    assert all(one.low <= one.high <= 1 for one in found.values())
    assert found["warmup_steps"].high < found["learning_rate"].low


def test_a_search_without_any_trial_has_a_page(tmp_path: Path) -> None:
    assert "No trial has lived to its end yet" in page(random_study(0), tmp_path)


def test_why_says_how_far_ahead_of_the_settings_and_of_the_next(study) -> None:
    words, trials = " ".join(why_best(study, messages("search", "en"))), finished(study)
    assert "The next, trial" in words and "may be chance" in words
    assert ("Trial 0, the settings as they were" in words) == (not trials[0].user_attrs["failed"])


def test_best_hparams_say_why_in_comments(study) -> None:
    best = best_trial(study)
    text = best_yaml(study, best, best.params)
    comments = [line for line in text.splitlines() if line.startswith("#")]
    assert any("The next, trial" in line for line in comments) and any("failed" in line for line in comments)
    assert any("alignment 0.9" in line for line in comments)


def test_parallel_lines_lie_within_the_picture_and_the_best_on_top(study) -> None:
    best, ranked = best_trial(study), study_report.ranked(finished(study))
    drawn = parallel(ranked, sorted(best.params), best=best)
    assert drawn.lines[-1].kind == "best" and len(drawn.lines) == len(ranked)
    numbers = [float(y) for line in drawn.lines for y in re.findall(r"[ML][\d.]+ ([\d.]+)", line.path)]
    assert drawn.top <= min(numbers) and max(numbers) <= drawn.bottom


def test_a_disk_that_refuses_the_page_is_told_of_once(study, tmp_path: Path, monkeypatch, caplog) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(study_report, "write_atomic", refuse)
    page_file = StudyReportFile(study, tmp_path, "en", n_trials=30, every_s=0)
    for _ in range(3):
        page_file.on_record(None)
    assert caplog.text.count("can't be written") == 1


def test_a_parameter_that_only_failed_trials_had_is_no_axis(study, tmp_path: Path) -> None:
    other = random_study(25)
    space = {**SPACE, "guide_sigma": FloatDistribution(0.1, 0.6)}
    facts = {"ending": "diverged", "failed": True, "epoch": 1.0, "step": 10}
    params = {**other.trials[0].params, "guide_sigma": 0.3}
    other.add_trial(optuna.create_trial(params=params, distributions=space, value=9.0, user_attrs=facts))
    text = page(other, tmp_path)
    assert 'text-anchor="middle">dropout_rate<' in text and 'text-anchor="middle">guide_sigma<' not in text
