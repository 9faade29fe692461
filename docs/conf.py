"""The documents as a site: `sphinx-build -W -c docs . site`, and with `-D language=ru` into `site/ru`.

The files are those of the repository, so they keep reading well there. README is the front page, and the table of its
last section but one is the navigation. -W makes every warning an error: a link that leads nowhere, a page that
nothing leads to. One language is built at a time; a link to a page of the other leads to its site beside this one.
"""

import re
import shutil
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.config import Config

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"\[([^]]+)\]\(([^)\s#]+)(#[^)\s]+)?\)")
ROW = re.compile(r"^\| ([^|]+) \| (\[.+\)) \|$", re.MULTILINE)  # of README's table of documents

project = html_title = "Tacotron 2"
extensions = ["myst_parser"]
myst_heading_anchors = 6
html_theme = "furo"
html_extra_path = ["sounds"]
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_use_index = False
html_copy_source = html_show_copyright = False
exclude_patterns = [f"{path.name}/**" for path in ROOT.iterdir() if path.is_dir() and path.name != "docs"]
nitpicky = True
locale_dirs = ["docs/locale"]  # what Sphinx has no Russian for
smartquotes = False  # defaults such as "" stay as they are typed


def choose_documents(app: Sphinx, config: Config) -> None:
    """Those of one language; the front page holds no list of them that Sphinx could read."""
    config.root_doc = "README.ru" if config.language == "ru" else "README"
    paths = [path for folder in (ROOT, ROOT / "docs") for path in folder.glob("*.md")]
    config.include_patterns = [str(path.relative_to(ROOT)) for path in paths if is_russian(path) == is_russian(config)]


def is_russian(of: Path | Config) -> bool:
    return of.language == "ru" if isinstance(of, Config) else of.name.endswith(".ru.md")


def prepare(app: Sphinx, name: str, source: list[str]) -> None:
    """Adds the navigation to the front page; links that are not of this site become HTML."""
    path = ROOT / f"{name}.md"
    text = "\n\n".join(rewritten(paragraph, path) for paragraph in source[0].split("\n\n"))
    if name == app.config.root_doc:
        text += navigation(source[0], is_russian(path), sorted(app.config.include_patterns))
    source[0] = text


def rewritten(paragraph: str, page: Path) -> str:
    """With its links, and with a player after it for each sound that it names."""
    sounds = [path for _, path, _ in LINK.findall(paragraph) if path.endswith(".flac")]
    players = [f'\n\n<audio controls preload="metadata" src="{up(page)}{Path(path).name}"></audio>' for path in sounds]
    return LINK.sub(lambda link: linked(link, page) or link[0], paragraph) + "".join(players)


def linked(link: re.Match[str], page: Path) -> str | None:
    """HTML for a page of the other language or a sound; None for what Sphinx resolves itself."""
    target = (page.parent / link[2]).resolve()
    if not target.is_file():
        return None
    if target.suffix == ".flac":
        address = f"{up(page)}{target.name}"
    elif target.suffix == ".md" and is_russian(target) != is_russian(page):
        site = "../" if is_russian(page) else "ru/"
        address = f"{up(page)}{site}{target.relative_to(ROOT).with_suffix('.html')}{link[3] or ''}"
    else:
        return None
    return f'<a class="reference" href="{address}">{link[1]}</a>'


def up(page: Path) -> str:
    """From its folder to the top of the site."""
    return "../" * len(page.parent.relative_to(ROOT).parts)


def navigation(readme: str, is_in_russian: bool, pages: list[str]) -> str:
    """A hidden table of contents for each row of README's table; the last one has what no row names."""
    blocks, left = [], {page for page in pages if not page.startswith("README")}
    for caption, cell in ROW.findall(readme):
        named = list(dict.fromkeys(target for _, target, _ in LINK.findall(cell) if target in left))
        left -= set(named)
        blocks.append((caption.capitalize(), named))
    blocks.append(("\u0415\u0449\u0451" if is_in_russian else "More", sorted(left)))
    return "".join(f"\n\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n" + "\n".join(names) + "\n```"
                   for caption, names in blocks if names)  # fmt: skip


def add_index(app: Sphinx, error: Exception | None) -> None:
    if error is None:
        shutil.copyfile(Path(app.outdir, f"{app.config.root_doc}.html"), Path(app.outdir, "index.html"))


def setup(app: Sphinx) -> None:
    app.connect("config-inited", choose_documents)
    app.connect("source-read", prepare)
    app.connect("build-finished", add_index)
