"""Digits to English words: amounts of money, ordinals, decimals, grouped thousands, years.

The readings are NVIDIA/tacotron2's, except where those say another value than is written; the
docstring of `text.cleaners.english_cleaners` lists the exceptions.
"""

import re
from functools import cache, lru_cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import inflect

MAX_SPOKEN_DIGITS = 36  # inflect has no name for 10^36; longer numbers are read digit by digit
_YEARS = range(1001, 3000)  # read in pairs of digits, like a year: 1984 and also 1250


class _Currency(NamedTuple):
    one: str
    many: str
    one_hundredth: str
    many_hundredths: str


_CURRENCIES = {
    "$": _Currency("dollar", "dollars", "cent", "cents"),
    "\u00a3": _Currency("pound", "pounds", "penny", "pence"),
    "\u20ac": _Currency("euro", "euros", "cent", "cents"),
}
CURRENCY_SIGNS = "".join(_CURRENCIES)

# The last group has three digits, those between two or three (1,250,000 and 12,50,000); "1,2,3" is a list.
_GROUPED = re.compile(r"(?<![0-9])[0-9]{1,3}(?:,[0-9]{2,3})*,[0-9]{3}(?![0-9])")
_MONEY = re.compile(
    rf"([{CURRENCY_SIGNS}]) ?([0-9]+(?:\.[0-9]+)*|(?:\.[0-9]+)+)(?:[\s-]+(thousand|million|billion|trillion)\b)?",
    re.IGNORECASE,
)
_DECIMAL = re.compile(r"([0-9]+)\.([0-9]+)")
_ORDINAL = re.compile(r"[0-9]+(?:st|nd|rd|th)\b", re.IGNORECASE)
_INTEGER = re.compile(r"[0-9]+")


def expand_numbers(text: str) -> str:
    """`text` with every number in ASCII digits written out in words.

    >>> expand_numbers("$3.50 in 1984, the 2nd time")
    'three dollars, fifty cents in nineteen eighty-four, the second time'
    """
    if _INTEGER.search(text) is None:
        return text
    text = _GROUPED.sub(lambda match: match[0].replace(",", ""), text)
    text = _MONEY.sub(_money, text)
    text = _DECIMAL.sub(_decimal, text)
    text = _ORDINAL.sub(lambda match: _ordinal_words(match[0].lower()), text)
    return _INTEGER.sub(lambda match: _integer_words(match[0]), text)


@cache
def _engine() -> "inflect.engine":
    import inflect  # here, because the import takes a second or two and most texts have no digits

    return inflect.engine()


def _money(match: re.Match[str]) -> str:
    """Still in digits: the later rules read those."""
    sign, amount, magnitude = match.groups()
    currency = _CURRENCIES[sign]
    if magnitude:
        return f"{_with_leading_zero(amount)} {magnitude} {currency.many}"
    whole, *fractions = amount.split(".")
    if len(fractions) > 1 or (fractions and len(fractions[0]) > 2):
        return f"{_with_leading_zero(amount)} {currency.many}"  # 1.2.3 or 1.005: no number of hundredths
    units = _counted(whole, one=currency.one, many=currency.many)
    hundredths = (fractions[0] if fractions else "").ljust(2, "0")  # 3.5 is three and fifty hundredths
    parts = [units, _counted(hundredths, one=currency.one_hundredth, many=currency.many_hundredths)]
    return ", ".join(part for part in parts if part) or f"0 {currency.many}"


def _counted(digits: str, *, one: str, many: str) -> str:
    number = digits.lstrip("0")  # not int(): Python refuses to convert thousands of digits
    if not number:
        return ""
    return f"{number} {one if number == '1' else many}"


def _with_leading_zero(amount: str) -> str:
    return "0" + amount if amount.startswith(".") else amount


def _decimal(match: re.Match[str]) -> str:
    whole, fraction = match.groups()
    if fraction.startswith("0"):
        fraction = " ".join(fraction)  # 1.05 digit by digit: as a number, 05 would sound like 1.5
    return f"{whole} point {fraction}"


@lru_cache(maxsize=4096)
def _ordinal_words(ordinal: str) -> str:
    digits, suffix = ordinal[:-2], ordinal[-2:]
    if len(digits) > MAX_SPOKEN_DIGITS:
        return f"{_digit_words(digits)} {suffix}"
    return _words(ordinal, andword="and")


@lru_cache(maxsize=4096)
def _integer_words(digits: str) -> str:
    if len(digits) > MAX_SPOKEN_DIGITS:
        return _digit_words(digits)
    number = int(digits)
    if number not in _YEARS or number == 2000:
        return _words(number)
    if 2000 < number < 2010:
        return f"two thousand {_words(number % 100)}"
    if number % 100 == 0:
        return f"{_words(number // 100)} hundred"
    return _words(number, group=2, zero="oh").replace(", ", " ")


def _digit_words(digits: str) -> str:
    return " ".join(_words(digit) for digit in digits)


def _words(number: int | str, *, andword: str = "", group: int = 0, zero: str = "zero") -> str:
    words = _engine().number_to_words(str(number), andword=andword, group=group, zero=zero)
    assert isinstance(words, str), "a list comes only with wantlist"
    return words
