"""Cleaners: from text as people write it to text that the symbols can spell. `CLEANERS` knows them by name.

A cleaner for another language is a function from text to text with an entry in `CLEANERS`.
"""

import difflib
import re
from collections.abc import Callable, Sequence

from common.errors import UserError
from text.english_numbers import CURRENCY_SIGNS, expand_numbers
from text.transliteration import transliterated

Cleaner = Callable[[str], str]

_WHITESPACE = re.compile(r"\s+")
_NON_ASCII = re.compile(rf"[^\x00-\x7f{CURRENCY_SIGNS}]+")
_ANY_NON_ASCII = re.compile(r"[^\x00-\x7f]+")

# The words are those that the published checkpoints heard in training, "misess" included.
_ABBREVIATIONS = {
    "capt": "captain",
    "co": "company",
    "col": "colonel",
    "dr": "doctor",
    "drs": "doctors",
    "esq": "esquire",
    "ft": "fort",
    "gen": "general",
    "hon": "honorable",
    "jr": "junior",
    "lt": "lieutenant",
    "ltd": "limited",
    "maj": "major",
    "mr": "mister",
    "mrs": "misess",
    "rev": "reverend",
    "sgt": "sergeant",
    "st": "saint",
}
_ABBREVIATION = re.compile(rf"\b({'|'.join(_ABBREVIATIONS)})\.", re.IGNORECASE)


def basic_cleaners(text: str) -> str:
    """Lower case, and every run of whitespace one space. Letters outside ASCII stay."""
    return _WHITESPACE.sub(" ", text.lower())


def transliteration_cleaners(text: str) -> str:
    """`basic_cleaners` after transliteration to ASCII; what has no transliteration stays and can be reported."""
    return basic_cleaners(_ANY_NON_ASCII.sub(_transliterate, text))


def english_cleaners(text: str) -> str:
    """English: transliteration, lower case, numbers and abbreviations in words, single spaces.

    Equal to NVIDIA/tacotron2's cleaner of the same name on every text that its published LJSpeech checkpoint was
    trained on. So what that checkpoint learnt is kept, odd or not: "Mrs." is "misess" (in 234 lines of its
    filelists), "St." always "saint", "ft." always "fort". Plain numbers, ordinals, years and dollars read as there
    too; but those filelists have not one digit, so no weights depend on them, and we differ where NVIDIA says
    something else than is written:

    - pounds and euros: "twelve fifty pounds" (NVIDIA: "pstwelve fifty", as it transliterates the sign first)
    - one digit of cents, $3.5: "three dollars, fifty cents" (NVIDIA: five cents); three or more, $1.005: a decimal
    - $1.5 million: "one point five million dollars" (NVIDIA: "one dollar, five cents million")
    - a fraction that begins with zero, 1.05: "one point zero five" (NVIDIA: "one point five")
    - a list, 1,2,3: "one,two,three" (NVIDIA takes every comma between digits for grouping: 123)
    - a character without transliteration stays, to be reported (NVIDIA drops it)
    - numbers of more than 36 digits and "$,5" are read, where NVIDIA raises

    Signs with no reading (&, %, #, a currency sign without a number) stay too.
    """
    return english_words(_NON_ASCII.sub(_transliterate, text).lower())


def english_words(text: str) -> str:
    """`english_cleaners` without lower case, for a dictionary that tells "US" from "us"."""
    text = _NON_ASCII.sub(_transliterate, text)
    text = expand_numbers(text)
    text = _ABBREVIATION.sub(lambda match: _ABBREVIATIONS[match[1].lower()], text)
    return _WHITESPACE.sub(" ", text)


CLEANERS: dict[str, Cleaner] = {
    cleaner.__name__: cleaner for cleaner in (basic_cleaners, transliteration_cleaners, english_cleaners)
}


def clean(text: str, cleaner_names: Sequence[str]) -> str:
    """`text` through the named cleaners in turn. UserError on a name that `CLEANERS` lacks."""
    for cleaner in named_cleaners(cleaner_names):
        text = cleaner(text)
    return text


def named_cleaners(cleaner_names: Sequence[str]) -> list[Cleaner]:
    """The cleaners of these names. UserError naming every unknown one, the nearest and all known names."""
    assert not isinstance(cleaner_names, str), "a list of names, not one name"
    unknown = [name for name in cleaner_names if name not in CLEANERS]
    if unknown:
        named = ", ".join(_with_nearest(name) for name in unknown)
        raise UserError(f"text_cleaners: no cleaner is called {named}; known: {', '.join(CLEANERS)}")
    return [CLEANERS[name] for name in cleaner_names]


def _with_nearest(name: str) -> str:
    nearest = difflib.get_close_matches(name, CLEANERS, n=1)
    return f"{name!r} (did you mean {nearest[0]!r}?)" if nearest else repr(name)


def _transliterate(match: re.Match[str]) -> str:
    return "".join(map(transliterated, match[0]))
