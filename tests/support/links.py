"""Where links of documents lead."""

import re
from functools import cache
from pathlib import Path

from support.paths import REPOSITORY


def name_of(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


@cache
def without_code(path: Path) -> str:
    """The text without its blocks of code."""
    return re.sub(r"^```.*?^```\n?", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


@cache
def anchors(path: Path) -> frozenset[str]:
    """Of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", without_code(path), flags=re.MULTILINE)
    return frozenset(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings)


def problem_of_link(source: Path, link: str) -> str | None:
    """Why a relative link leads nowhere."""
    name, _, anchor = link.partition("#")
    target = (source.parent / name).resolve() if name else source
    if not target.exists():
        return f"{name_of(source)}: {link}: no such file"
    if anchor and anchor not in anchors(target):
        return f"{name_of(source)}: {link}: no such heading"
    return None
