"""Events in the language of their reader: training writes them in English, messages.yaml has the words."""

import re
from functools import cache, lru_cache

from common.translations import Language, messages, read_messages

LONGEST = 2000  # characters; what is longer holds somebody else's text


def event_kind(kind: str, language: Language) -> str:
    """The name of a kind of events, such as "step skipped"."""
    return _kinds(language).get(kind, kind.replace("_", " "))


def event_message(message: str, language: Language) -> str:
    """What an event says; where messages.yaml lacks it, as it was written."""
    return message if language == "en" or len(message) > LONGEST else _translated(message)


@lru_cache(maxsize=1000)
def _translated(message: str) -> str:
    for pattern, wanted in _patterns():
        if match := pattern.fullmatch(message):
            return wanted.format(**{name: _translated(part) for name, part in match.groupdict().items()})
    return message


@cache
def _patterns() -> tuple[tuple[re.Pattern[str], str], ...]:
    """(English, Russian) of each message, in their order."""
    return tuple((_pattern(text["en"]), text["ru"]) for text in read_messages()["event_messages"].values())


def _pattern(template: str) -> re.Pattern[str]:
    """`from step {step}` -> what matches such a text, with its parts by name."""
    words = re.split(r"\{(\w+)\}", template)  # texts and names in turns
    parts = [f"(?P<{word}>.*?)" if i % 2 else re.escape(word) for i, word in enumerate(words)]
    return re.compile("".join(parts), flags=re.DOTALL)


@cache
def _kinds(language: Language) -> dict[str, str]:
    return messages("event_kinds", language)
