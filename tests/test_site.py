"""The documents as a site: it is built without a warning, its links lead somewhere, it fits a phone and asks nobody."""

import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from selenium import webdriver

from support.browser import browser, opened  # noqa: F401 - a fixture
from support.paths import REPOSITORY

pytestmark = pytest.mark.spec  # it is built twice, in two languages
WIDTHS = {"phone": 390, "desktop": 1280}
LOOKED_AT = ("index", "docs/quickstart", "docs/troubleshooting", "docs/parameters", "docs/hyperparameters")
MEDIA = ("img", "script", "link", "audio", "source", "iframe")


class Page(HTMLParser):
    """What a page points at, and what can be pointed at in it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.ids: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.ids.add(given.get("id", ""))
        address = given.get("href") or given.get("src")
        if address:
            (self.loaded if tag in MEDIA else self.links).append(address)


def build(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", "docs", *more, ".", str(folder)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    for done in (build(folder), build(folder / "ru", "-D", "language=ru")):
        assert (done.returncode, done.stderr) == (0, "")
    return folder


def pages(site: Path) -> Iterator[Path]:
    yield from sorted(site.rglob("*.html"))


def problem_of(link: str, page: Path, known: dict[Path, Page]) -> str | None:
    name, _, anchor = unquote(link).partition("#")
    target = (page.parent / name.partition("?")[0]).resolve() if name else page
    if not target.is_file():
        return f"{page.name}: {link}: no such file"
    if anchor and target in known and anchor not in known[target].ids:
        return f"{page.name}: {link}: nothing of that name in it"
    return None


def test_every_link_of_every_page_leads_somewhere_also_into_the_other_language(site: Path) -> None:
    known = {path.resolve(): Page(path) for path in pages(site)}
    local = [(link, path) for path, page in known.items() for link in [*page.links, *page.loaded]
             if not re.match(r"https?:|mailto:|data:", link)]  # fmt: skip
    assert len(local) > 1000
    assert [found for link, path in local if (found := problem_of(link, path, known))] == []
    crossing = [link for link, path in local if link.endswith(".ru.html") and "ru" not in path.relative_to(site).parts]
    assert len(crossing) >= 14


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    loaded = [address for path in pages(site) for address in Page(path).loaded]
    assert [address for address in loaded if re.match(r"(?:https?:)?//", address)] == []
    styles = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert re.findall(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//", styles) == []


def test_every_document_is_a_page_in_its_language(site: Path) -> None:
    for path in [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").glob("*.md")]:
        is_russian = path.name.endswith(".ru.md")
        page = (site / "ru" if is_russian else site) / path.relative_to(REPOSITORY).with_suffix(".html")
        assert f'lang="{"ru" if is_russian else "en"}"' in page.read_text(encoding="utf-8")
    for folder, front in ((site, "README.html"), (site / "ru", "README.ru.html")):
        assert (folder / "index.html").read_bytes() == (folder / front).read_bytes()


def test_the_theme_speaks_the_language_of_the_page(site: Path) -> None:
    words = [">Next<", ">Previous<", "On this page", "Back to top", ">Home<"]
    english, russian = ((site / name).read_text() for name in ("docs/tuning.html", "ru/docs/tuning.ru.html"))
    assert len([word for word in words if word in english]) >= 4
    assert [word for word in words if word in russian] == []


def test_a_link_that_leads_nowhere_ends_the_build(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    for name in ("conf.py", "site.css"):
        (tmp_path / "docs" / name).write_bytes((REPOSITORY / "docs" / name).read_bytes())
    (tmp_path / "docs" / "sounds").mkdir()
    (tmp_path / "README.md").write_text("# A\n\n[gone](docs/gone.md), [no heading](#nothing)\n")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", "docs", ".", "site"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "docs/gone.md" in done.stderr and "nothing" in done.stderr


def too_wide(browser: webdriver.Chrome) -> list[str]:  # noqa: F811
    """What reaches beyond the right edge and lies in nothing that scrolls."""
    return browser.execute_script(
        """
        const scrolls = e => e && (['auto', 'scroll', 'hidden'].includes(getComputedStyle(e).overflowX) ||
                                   scrolls(e.parentElement));
        return [...document.querySelectorAll('article *')]
            .filter(e => e.getBoundingClientRect().right > innerWidth + 1 && !scrolls(e.parentElement))
            .map(e => e.tagName + ': ' + e.textContent.slice(0, 60));
        """
    )


@pytest.mark.parametrize("language", ["", "ru"])
@pytest.mark.parametrize("width", WIDTHS)
def test_pages_fit_and_show_their_pictures(
    browser: webdriver.Chrome, site: Path, width: str, language: str  # noqa: F811
) -> None:
    phone = {"width": WIDTHS[width], "height": 844, "deviceScaleFactor": 1, "mobile": width == "phone"}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    try:
        for name in LOOKED_AT:
            suffix = ".ru.html" if language and name != "index" else ".html"
            seen = opened(browser, site / language / f"{name}{suffix}")
            assert browser.execute_script("return document.documentElement.scrollWidth") <= WIDTHS[width], name
            assert too_wide(browser) == [], name
            assert browser.execute_script("return [...document.images].filter(i => !i.naturalWidth).length") == 0
            assert {url.partition(":")[0] for url in seen["requested"]} <= {"file", "data"}
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
