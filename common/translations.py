"""What is said in English or Russian: messages.yaml, and which of the two is wanted."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

from common.yaml_file import read_own_yaml

Language = Literal["en", "ru"]
FILE = Path(__file__).with_name("messages.yaml")


def language_of(environment: Mapping[str, str]) -> Language:
    """Of the locale that messages are wanted in; English unless it is Russian."""
    chosen = next((environment[name] for name in ("LC_ALL", "LC_MESSAGES", "LANG") if environment.get(name)), "")
    return "ru" if chosen.lower().startswith("ru") else "en"


@cache
def read_messages() -> dict[str, Any]:
    """`{section: {message: {en: ..., ru: ...}}}`"""
    content = read_own_yaml(FILE)
    assert isinstance(content, dict)
    return content


def messages(section: str, language: Language) -> dict[str, str]:
    """The messages of a section by name, with {places} to fill in."""
    return {name: text[language] for name, text in read_messages()[section].items()}
