"""Languages: what their texts are written in and which symbols a voice of theirs has by default."""

import difflib
from dataclasses import dataclass
from functools import cache

from common.errors import UserError
from text.symbol_sets import DATA

# The normaliser of these writes numbers and dates in words; elsewhere espeak-ng reads digits itself.
DAMGA_LANGUAGES = frozenset(("de", "es", "fr", "it", "tr"))
ALIASES = {"zh": "cmn", "zh-cn": "cmn", "zh-cmn": "cmn", "fr-fr": "fr", "pt-pt": "pt", "no": "nb", "ru-ru": "ru"}


@dataclass(frozen=True)
class Language:
    """`code` as users write it, `scripts` in the words of Unicode's character names, lower case."""

    code: str
    name: str
    scripts: tuple[str, ...]

    @property
    def base(self) -> str:
        """`de` of `de-at`."""
        return self.code.partition("-")[0]

    @property
    def is_english(self) -> bool:
        return self.base == "en"


@cache
def languages() -> dict[str, Language]:
    """All languages by code, in the order of the table: English and Russian first."""
    table = {}
    for line in (DATA / "languages.tsv").read_text(encoding="utf-8").splitlines():
        code, name, scripts = line.split("\t")
        table[code] = Language(code, name, tuple(scripts.split()))
    return table


def language_of(code: str) -> Language:
    """UserError with the nearest codes and names where there is no such language."""
    wanted = code.strip().lower().replace("_", "-")
    wanted = ALIASES.get(wanted, wanted)
    if wanted in languages():
        return languages()[wanted]
    by_name = {language.name.lower(): language.code for language in languages().values()}
    nearest = [by_name[name] for name in difflib.get_close_matches(wanted, by_name, n=2)]
    nearest += difflib.get_close_matches(wanted, languages(), n=3)
    hint = f"; nearest: {', '.join(_named(each) for each in dict.fromkeys(nearest))}" if nearest else ""
    raise UserError(f"language={code}: no such language{hint}; `python -m text languages` lists all {len(languages())}")


def languages_written_in(script: str) -> list[str]:
    """Codes of languages in that script, the first few: the way out for a text in the wrong one."""
    return [language.code for language in languages().values() if script in language.scripts][:6]


def _named(code: str) -> str:
    return f"{code} ({languages()[code].name})"
