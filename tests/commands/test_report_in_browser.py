"""The report as a browser sees it: sounds play, nothing is fetched, no text of a run acts, a phone is enough."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from audio.recordings import write_wav
from monitoring.report.page import write_report
from support.written_runs import RATE, sample, write_run

pytestmark = pytest.mark.spec

HOSTILE = "<script>window.acted = 1</script><img src=x onerror='window.acted = 1'>"
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--autoplay-policy=no-user-gesture-required",
)  # fmt: skip
PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("chromium and chromedriver are not installed (Debian: apt install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options=options, service=Service(driver))
    yield started
    started.quit()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = write_run(tmp_path_factory.mktemp("runs") / "a run", texts=("a low tone", HOSTILE), is_ended=True)
    return write_report(run, "en")


def opened(browser: webdriver.Chrome, page: Path) -> dict[str, list[Any]]:
    """Loads the page until every sound is known. -> console: its messages; requested: all addresses."""
    for kind in ("browser", "performance"):
        browser.get_log(kind)  # forgets what was before
    browser.get(page.as_uri())
    ready = "return [...document.querySelectorAll('audio')].every(a => a.readyState > 0 || a.error)"
    WebDriverWait(browser, 60).until(lambda b: b.execute_script(ready))
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requested = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    return {"console": browser.get_log("browser"), "requested": requested}


def test_the_page_plays_asks_for_nothing_and_no_text_acts(browser: webdriver.Chrome, page: Path) -> None:
    seen = opened(browser, page)
    durations = browser.execute_script("return [...document.querySelectorAll('audio')].map(a => a.duration)")
    assert len(durations) == 3 and all(abs(d - 2.5) < 0.01 for d in durations)
    broken = "return [...document.images].filter(i => i.loading != 'lazy' && !i.naturalWidth).length"
    assert browser.execute_script(broken) == 0
    assert seen["console"] == []
    assert {url.partition(":")[0] for url in seen["requested"]} <= {"file", "data"}
    assert [url for url in seen["requested"] if url.startswith("file")] == [page.as_uri()]
    assert browser.execute_script("return window.acted") is None
    assert "<script>window.acted = 1</script>" in browser.find_element(By.TAG_NAME, "body").text


@pytest.mark.parametrize("seconds", [0.4, 2.5])
def test_a_sound_can_be_played(browser: webdriver.Chrome, page: Path, seconds: float) -> None:
    wav = sample("x", seconds=seconds).wav
    assert wav is not None
    write_wav(page.parent / "samples/step_00000500_0.wav", wav, RATE)
    opened(browser, write_report(page.parent, "en"))
    (page.parent / "samples/step_00000500_0.wav").unlink()
    play = """
        const done = arguments[0], sound = document.querySelector('audio');
        sound.muted = true;
        sound.onended = () => done('ended');
        sound.onerror = () => done(sound.error.message);
        sound.play().catch(e => done(String(e)));
    """
    browser.set_script_timeout(60)
    assert browser.execute_async_script(play) == "ended"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_it_without_scrolling_sideways_in_either_colour(
    browser: webdriver.Chrome, page: Path, scheme: str
) -> None:
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    try:
        opened(browser, page)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= PHONE["width"]
        ink, paper = browser.execute_script(
            "const s = getComputedStyle(document.body); return [s.color, s.backgroundColor].map(c => "
            "c.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + +b, 0))"
        )
        assert (paper > ink) == (scheme == "light") and abs(paper - ink) > 400
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
