"""The pages of an evaluation as a browser sees them: sounds play, nothing is fetched, votes are counted and saved."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from data_utils import load_corpus
from evaluation.blind_test import write_blind_test
from evaluation.judge import judge
from evaluation.page import write_page
from hparams import HParams
from support.browser import HOSTILE, browser, opened  # noqa: F401 - a fixture
from support.voices import save_voice

pytestmark = pytest.mark.spec
SOURCES = ("voice", "copy-synthesis", "recordings")


@pytest.fixture(scope="module")
def evaluation(
    tiny: Callable[..., HParams], corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Two texts, whose words would act if a page let them."""
    folder, hp = tmp_path_factory.mktemp("evaluation"), tiny()
    save_voice(hp, load_corpus(hp), folder / "voice")
    (folder / "words.txt").write_text("".join(f"wavs/{i}.wav|{HOSTILE} {i}\n" for i in (5, 6)))
    judged = judge(
        folder / "voice", filelist=corpus_folder / "val.txt", dataset_path=corpus_folder, output=folder / "out", n=2,
        seeds=[1], words=folder / "words.txt",
    )  # fmt: skip
    return {"page": write_page(judged, folder / "out", "en"), "blind": write_blind_test(judged, folder / "out", "en")}


@pytest.mark.parametrize("name", ["page", "blind"])
def test_sounds_play_nothing_is_fetched_and_no_text_acts(
    browser: webdriver.Chrome, evaluation: dict[str, Path], name: str  # noqa: F811
) -> None:
    seen = opened(browser, evaluation[name])
    assert seen["console"] == []
    assert [url for url in seen["requested"] if not url.startswith(("file:", "data:"))] == []
    sounds = browser.execute_script("return [...document.querySelectorAll('audio')].map(a => a.duration > 0.1)")
    assert sounds == [True] * (6 if name == "page" else 2)
    assert browser.execute_script("return window.acted") is None
    assert HOSTILE in browser.find_element(By.TAG_NAME, "body").text


def test_votes_are_blind_can_be_taken_back_and_are_saved(
    browser: webdriver.Chrome, evaluation: dict[str, Path], tmp_path: Path  # noqa: F811
) -> None:
    opened(browser, evaluation["blind"])
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    shown = browser.find_element(By.ID, "ask").text
    assert "pair 1 of 2" in shown and not any(source in shown for source in SOURCES)

    def vote(kind: str) -> None:
        browser.find_element(By.CSS_SELECTOR, f"[data-vote={kind}]").click()

    vote("first")
    browser.find_element(By.ID, "back").click()
    vote("second")
    vote("same")
    assert len(browser.find_elements(By.CSS_SELECTOR, "#counts p")) == len(SOURCES)
    browser.find_element(By.ID, "save").click()
    WebDriverWait(browser, 30).until(lambda _: (tmp_path / "votes.json").is_file())
    saved: dict[str, Any] = json.loads((tmp_path / "votes.json").read_text())
    assert saved["step"] == 3 and [vote["better"] is None for vote in saved["votes"]].count(True) == 1
    (won,) = (vote for vote in saved["votes"] if vote["better"])
    assert won["better"] == won["second"] and won["first"] != won["second"]
    wins = {count["name"]: count["wins"] for count in saved["counts"]}
    assert wins[won["second"]] == 1 and sum(wins.values()) == 1
