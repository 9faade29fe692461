"""The report as a browser sees it: sounds play, nothing is fetched, no text of a run acts, a phone is enough."""

from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

from audio.recordings import write_wav
from monitoring.report.page import write_report
from support.browser import HOSTILE, browser, opened  # noqa: F401 - a fixture
from support.written_runs import RATE, sample, write_run

pytestmark = pytest.mark.spec

PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = write_run(tmp_path_factory.mktemp("runs") / "a run", texts=("a low tone", HOSTILE), is_ended=True)
    return write_report(run, "en")


def test_the_page_plays_asks_for_nothing_and_no_text_acts(browser: webdriver.Chrome, page: Path) -> None:  # noqa: F811
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
def test_a_sound_can_be_played(browser: webdriver.Chrome, page: Path, seconds: float) -> None:  # noqa: F811
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
    browser: webdriver.Chrome, page: Path, scheme: str  # noqa: F811
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
