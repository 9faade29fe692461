"""Chromium, and what a page did in it."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

HOSTILE = "<script>window.acted = 1</script><img src=x onerror='window.acted = 1'>"
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--autoplay-policy=no-user-gesture-required",
)  # fmt: skip


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


def opened(browser: webdriver.Chrome, page: Path) -> dict[str, list[Any]]:
    """Loads the page until every sound is known. -> console: its messages; requested: all addresses but those of
    the browser's own page, which may still be loading.
    """
    for kind in ("browser", "performance"):
        browser.get_log(kind)  # forgets what was before
    browser.get(page.as_uri())
    ready = "return [...document.querySelectorAll('audio')].every(a => a.readyState > 0 || a.error)"
    WebDriverWait(browser, 60).until(lambda b: b.execute_script(ready))
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    requested = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    by_page = [address for address in requested if not address.startswith("chrome:")]
    return {"console": browser.get_log("browser"), "requested": by_page}
