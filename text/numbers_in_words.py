"""Numbers, dates and abbreviations in words, for the languages that damga knows."""

from collections.abc import Sequence
from functools import cached_property

from text.child import Children, check_installed, children_of
from text.languages import DAMGA_LANGUAGES, Language


class NumbersInWords:
    """damga in a process of its own."""

    packages = ("damga",)

    def __init__(self, language: Language) -> None:
        self._language = language

    @cached_property
    def _children(self) -> Children:
        check_installed(self.packages, purpose=f"language={self._language.code}")
        return children_of("numbers", {"language": self._language.base})

    def read(self, texts: Sequence[str]) -> list[str]:
        return [str(answer) for answer in self._children.read(texts)]

    def close(self) -> None:
        if "_children" in vars(self):
            self._children.close()


def numbers_of(language: Language) -> NumbersInWords | None:
    """None where espeak-ng reads the digits itself."""
    return NumbersInWords(language) if language.base in DAMGA_LANGUAGES else None
