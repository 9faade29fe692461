"""serve.py as a person meets it: it starts, speaks in a browser, and ends."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select, WebDriverWait

import serve
from data_utils import load_corpus
from serving.app import Limits
from serving.offer import Offer
from support.paths import REPOSITORY
from support.servers import Client, serving
from support.voices import Tiny, save_voice

FLAGS = ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--lang=en", "--mute-audio")
DESKTOP, PHONE = (1280, 900), (390, 844)


@pytest.fixture(scope="module")
def voices(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("voices")
    for name, settings in (("anna", ""), ("boris", "use_gst=True")):
        hp = tiny(settings)
        save_voice(hp, load_corpus(hp), folder / name)
    return [folder / "anna", folder / "boris"]


@pytest.mark.spec
def test_the_command_speaks_and_ends_cleanly_when_asked_to(voices: list[Path]) -> None:
    command = [sys.executable, "serve.py", "-c", str(voices[0]), "--port", "0"]
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("listening on http://127.0.0.1:") and "Ctrl+C" in line
        client = Client(int(line.split(":")[2].split("/")[0]))
        assert client.speak(text="hi").body.startswith(b"RIFF")
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")


def test_a_port_that_is_taken_and_a_voice_that_is_not_there(
    voices: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code = serve.main(["-c", str(voices[0]), "--port", str(taken.getsockname()[1])])
    assert code == 2 and "choose another --port" in capsys.readouterr().err
    assert serve.main(["-c", str(tmp_path / "absent")]) == 2
    assert str(tmp_path / "absent") in capsys.readouterr().err


@pytest.mark.parametrize(("host", "names"), [("127.0.0.1", 3), ("192.168.1.2", 3), ("0.0.0.0", 1), ("::", 1)])
def test_only_a_server_for_everybody_takes_any_name(host: str, names: int) -> None:
    found = serve.hosts_of(host)
    assert len(found) == names and (("*" in found) == (names == 1))


@pytest.fixture(scope="module")
def page(voices: list[Path]) -> Iterator[str]:
    with serving(Offer.load(voices, ["griffin-lim"], precision="fp32"), Limits(longest_text=300)) as client:
        yield f"http://127.0.0.1:{client.port}/"


def opened(browser: webdriver.Chrome, page: str, size: tuple[int, int]) -> None:
    width, height = size
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get_log("browser")
    browser.get(page)
    WebDriverWait(browser, 30).until(lambda b: b.execute_script("return document.body.dataset.ready"))


def spoken(browser: webdriver.Chrome, n_sounds: int) -> None:
    browser.find_element(By.ID, "speak").click()
    ready = "return [...document.querySelectorAll('audio')].filter(a => a.readyState > 0).length"
    WebDriverWait(browser, 30).until(
        lambda b: b.execute_script(ready) == n_sounds, browser.find_element(By.TAG_NAME, "body").text
    )


@pytest.mark.slow
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_two_voices_are_heard_and_seen_side_by_side(
    browser: webdriver.Chrome, page: str, size: tuple[int, int]
) -> None:
    opened(browser, page, size)
    browser.find_element(By.ID, "text").send_keys("A low tone. One more.")
    Select(browser.find_element(By.ID, "against")).select_by_value("boris")
    spoken(browser, 2)
    durations = browser.execute_script("return [...document.querySelectorAll('audio')].map(a => a.duration)")
    assert all(duration > 0.3 for duration in durations)
    pixels = (
        "return [...document.querySelectorAll('canvas')].map(c => new Set(c.getContext('2d')"
        ".getImageData(0, 0, c.width, c.height).data).size)"
    )
    assert len(browser.execute_script(pixels)) == 4 and min(browser.execute_script(pixels)) > 3, "pictures, not blanks"
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth"), "no side scroll"
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_what_goes_wrong_is_said_on_the_page(browser: webdriver.Chrome, page: str) -> None:
    opened(browser, page, PHONE)
    browser.find_element(By.ID, "text").send_keys("<b>tone</b>")
    browser.find_element(By.ID, "speak").click()
    status = browser.find_element(By.ID, "status")
    WebDriverWait(browser, 30).until(lambda _: "'<b>tone</b>': no symbol" in status.text)
    assert browser.execute_script("return document.querySelectorAll('b').length") == 0, "a text is no markup"
    assert status.get_attribute("class") == "bad" and browser.find_element(By.ID, "speak").is_enabled()
