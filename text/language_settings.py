"""Settings that follow from the language: checked with all others, so nothing heavy is imported here."""

from collections.abc import Sequence
from typing import Any

from common.errors import UserError
from text.languages import Language, language_of
from text.symbol_sets import NAMED_SETS, table_from
from text.symbols import symbols

TRANSLITERATING = frozenset(("english_cleaners", "transliteration_cleaners"))  # cleaners that leave ASCII only


def own_or_named(language: str, cleaners: Sequence[str]) -> tuple[str, ...] | None:
    """`text_cleaners` as a front end takes them: None for the language's own, which in English has a name, too."""
    is_own = not cleaners or (language_of(language).is_english and list(cleaners) == ["english_cleaners"])
    return None if is_own else tuple(cleaners)


def is_language(code: str) -> bool:
    try:
        language_of(code)
    except UserError:
        return False
    return True


def language_defaults(
    language: str, text_input: str, symbol_set: str, cleaners: tuple[str, ...] | None
) -> dict[str, Any]:
    """The settings that follow from others: `text_cleaners`, and `n_symbols` where it is known before the texts.

    cleaners: None where the user names none. The symbols of a corpus or a file are counted when they are read.
    """
    chosen = language_of(language)
    settings: dict[str, Any] = {}
    if cleaners is None and not (chosen.is_english and text_input == "characters"):
        settings["text_cleaners"] = ()
    wanted = symbol_set or default_symbol_set(chosen, text_input, cleaners)
    if wanted in NAMED_SETS and wanted != "corpus":
        settings["n_symbols"] = len(table_from(wanted))
    return settings


def symbols_fit(n: int, language: str, text_input: str, symbol_set: str) -> bool:
    """Whether so many embedding rows may be asked for: those of the set, where that is known before the texts."""
    settings = language_defaults(language, text_input, symbol_set, None) if is_language(language) else {}
    return n in (settings.get("n_symbols", n), len(symbols))


def default_symbol_set(language: Language, text_input: str, cleaners: Sequence[str] | None) -> str:
    if text_input == "phonemes":
        return "ipa"
    if language.is_english or (cleaners is not None and not TRANSLITERATING.isdisjoint(cleaners)):
        return "nvidia"
    return "russian" if language.code == "ru" else "corpus"
