"""Claims about the page of an examination: what comes first, sounds play, no text acts, a phone is enough."""

import ast
import base64
import io
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from common.translations import messages
from corpus.doctor import Examination, examine
from corpus.doctor_page import histogram, page, sound_uri, worst
from corpus.measuring import MeasureIndex
from support.paths import REPOSITORY
from support.speech_like import RATE, SENTENCES, voice_like

HOSTILE = "<script>window.acted = 1</script><img src=x onerror='window.acted = 1'>"


@pytest.fixture(scope="module")
def examination(tmp_path_factory: pytest.TempPathFactory) -> Examination:
    """Eight lines: the third silent, the fifth clipped, the seventh with a hostile text."""
    folder = tmp_path_factory.mktemp("data")
    for i in range(8):
        soundfile.write(folder / f"u{i}.wav", voice_like(len(SENTENCES[i]) / 25, seed=i), RATE)
    soundfile.write(folder / "u2.wav", np.zeros(RATE), RATE)
    soundfile.write(folder / "u4.wav", np.clip(voice_like(1.4) * 12, -1, 1), RATE)
    texts = [*SENTENCES[:6], f"{SENTENCES[6]} {HOSTILE}", SENTENCES[7]]
    (folder / "train.csv").write_text("".join(f"u{i}.wav|{text}\n" for i, text in enumerate(texts)))
    return examine([folder / "train.csv"], dataset_path=folder, hash_of=str, index=MeasureIndex(folder / "index.json"))


def test_errors_come_before_warnings_and_both_before_good_lines(examination: Examination) -> None:
    numbers = [examined.line.number for examined in worst(examination, {})]
    assert numbers[0] == 3 and set(numbers[1:3]) == {5, 7}


def test_the_page_names_kinds_counts_and_places(examination: Examination) -> None:
    shown = page(examination, name="train.csv")
    assert "train.csv:3: u2: digital silence" in shown
    assert re.search(r'silent</td><td class="count">1<', shown)
    assert "7 of 8 read" in shown


def test_a_russian_locale_has_a_russian_page(examination: Examination, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "ru_RU.UTF-8")
    shown = page(examination, name="train.csv")
    assert '<html lang="ru">' in shown and messages("examination", "ru")["worst"] in shown
    assert re.search(rf'{messages("finding_kinds", "ru")["silent"]}</td><td class="count">1<', shown)
    for words in (messages("examination", "en"), messages("spread_titles", "en")):
        assert [text for text in words.values() if len(text) > 12 and f">{text}<" in shown] == []


def test_every_kind_of_finding_has_its_name_in_both_languages() -> None:
    makers = {"error", "warning", "note", "say", "UnreadableRecording", "BadRecording", "TextProblem"}
    kinds = {
        call.args[0].value
        for folder in ("corpus", "text")
        for path in (REPOSITORY / folder).rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") in makers
        and len(call.args) > 1 and isinstance(call.args[0], ast.Constant)
    }  # fmt: skip
    assert len(kinds) > 60 and kinds - set(messages("finding_kinds", "en")) == set()


def test_no_text_of_a_corpus_becomes_markup(examination: Examination) -> None:
    shown = page(examination, name=HOSTILE)
    assert "<script" not in shown and "<img" not in shown
    assert "default-src 'none'" in shown


def test_sounds_are_playable_whatever_their_scale(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "loud.wav", voice_like(1.0) * 30000, RATE, subtype="FLOAT")
    uri = sound_uri(tmp_path / "loud.wav")
    assert uri is not None and uri.startswith("data:audio/mpeg;base64,")
    wav, _ = soundfile.read(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    assert 0.5 < np.abs(wav).max() < 1.2 and len(wav) / 24000 == pytest.approx(1.0, abs=0.1)
    (tmp_path / "text.wav").write_text("no sound")
    assert sound_uri(tmp_path / "text.wav") is None


def test_a_histogram_counts_every_value_and_survives_few() -> None:
    found = histogram("x", list(np.random.default_rng(0).standard_normal(500)), "")
    assert found is not None and sum(int(bar.label.split(": ")[1]) for bar in found.bars) == 500
    assert histogram("x", [1.0, 1.0], "") is None and histogram("x", [], "") is None


@pytest.mark.spec
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_it_at_the_width_of_a_phone_and_a_desk(
    width: int, examination: Examination, tmp_path: Path
) -> None:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service
    from selenium.webdriver.support.ui import WebDriverWait

    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("chromium and chromedriver are not installed (Debian: apt install chromium chromium-driver)")
    (tmp_path / "page.html").write_text(page(examination, name="train.csv"), encoding="utf-8")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with webdriver.Chrome(options=options, service=Service(driver)) as browser:
        metrics = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 600}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        browser.get((tmp_path / "page.html").as_uri())
        ready = "return [...document.querySelectorAll('audio')].every(a => a.readyState > 0 || a.error)"
        WebDriverWait(browser, 60).until(lambda b: b.execute_script(ready))
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        assert browser.execute_script("return [...document.querySelectorAll('audio')].every(a => !a.error)")
        assert browser.execute_script("return window.acted") is None
        assert browser.get_log("browser") == []
